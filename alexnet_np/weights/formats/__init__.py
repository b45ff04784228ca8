"""The formats of weight files, each read as Contents and, where others should read it, written.

torch_zip.py, torch_legacy.py     torch.save's three formats, and TorchScript's archive
pickled.py                        a pickle as data; pickle_stream.py its opcodes, pickle_arrays.py NumPy's arrays in it,
                                  torch_tensors.py torch's tensors
pickle_file.py, npy_file.py       dicts of arrays that pickle.dump or numpy.save wrote
npz_file.py, zips.py              numpy.savez
safetensors_file.py               .safetensors
"""
