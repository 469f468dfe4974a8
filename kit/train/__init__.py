"""Training: one loop that can be killed at any moment and goes on exactly where it was, by one process or many."""

from kit.doctor import doctor as doctor
from kit.train.checkpoints import CHECKPOINT as CHECKPOINT
from kit.train.checkpoints import PREVIOUS as PREVIOUS
from kit.train.checkpoints import read_state as read_state
from kit.train.loop import Fit as Fit
from kit.train.loop import fit as fit
from kit.train.reports import Log as Log
from kit.train.reports import epoch_line as epoch_line
from kit.train.reports import scores as scores
from kit.train.reports import tensorboard as tensorboard
from kit.train.run import History as History
from kit.train.run import Run as Run
from kit.train.store import BEST as BEST
from kit.train.store import epoch_weights as epoch_weights
