"""The formats of weight files, each read as Contents and, where others should read it, written.

torch_zip.py, torch_legacy.py         torch.save's three formats, and TorchScript's archive
pickled.py, pickle_stream.py          a pickle as data, and its opcodes
pickle_arrays.py, torch_tensors.py    NumPy's arrays in one, and torch's tensors
pickle_file.py, npy_file.py           dicts of arrays that pickle.dump or numpy.save wrote
cuda_convnet.py, packed.py            the authors' checkpoints, and how they may be compressed
npz_file.py, zips.py                  numpy.savez
safetensors_file.py                   .safetensors
onnx_file.py, onnx_tensor.py          ONNX: the graph, and its numbers in the file or beside it
caffe_file.py                         .caffemodel
onnx_schema.py, caffe_schema.py       the messages of both
protobuf.py                           protocol buffers without their numbers
hdf5_file.py                          Caffe's snapshots in HDF5
mat_file.py, matconvnet.py            .mat, and the networks of MatConvNet in it
"""
