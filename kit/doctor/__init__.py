"""The doctor: is everything well before hours of training are spent? Verdicts, each with what to do.

python -m kit.doctor DATA [--model n] [--out FOLDER] [--json FILE]
"""

from kit.doctor.examine import Effort as Effort
from kit.doctor.examine import doctor as doctor
from kit.doctor.report import Report as Report
from kit.doctor.report import Verdict as Verdict
