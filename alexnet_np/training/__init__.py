"""Training, from a configuration to a finished network.

config.py                      everything that decides how a run turns out
task.py, building.py           the images, and the network, optimizer and schedule that it asks for
variants.py                    networks with one of the paper's ideas taken out
run.py                         all that a run is at one moment, and one step of it
loop.py                        Trainer: epochs, files, signals
checkpoint.py, metrics.py      what is on the disk
interrupt.py, lock.py          Ctrl-C between two steps; one process a run
evaluation.py, trained.py      how good a network is; finding one again that was trained here
ablation.py                    variants side by side
sgd.py, schedules.py           torch's numbers
pictures.py, tensorboard.py    what others draw with
"""
