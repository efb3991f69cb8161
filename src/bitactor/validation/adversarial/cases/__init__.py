"""One module a category; importing this package registers every case, in the order of the modules below."""

from bitactor.validation.adversarial.cases import framing as framing  # isort: skip
from bitactor.validation.adversarial.cases import access as access  # isort: skip
from bitactor.validation.adversarial.cases import tls as tls  # isort: skip
from bitactor.validation.adversarial.cases import state as state  # isort: skip
from bitactor.validation.adversarial.cases import replay as replay  # isort: skip
from bitactor.validation.adversarial.cases import http as http  # isort: skip
from bitactor.validation.adversarial.cases import http_sql as http_sql  # isort: skip
from bitactor.validation.adversarial.cases import injection as injection  # isort: skip
from bitactor.validation.adversarial.cases import secrets as secrets  # isort: skip
from bitactor.validation.adversarial.cases import timing as timing  # isort: skip
from bitactor.validation.adversarial.cases import loading as loading  # isort: skip
from bitactor.validation.adversarial.cases import files as files  # isort: skip
from bitactor.validation.adversarial.cases import library as library  # isort: skip
from bitactor.validation.adversarial.cases import exhaustion as exhaustion  # isort: skip
from bitactor.validation.adversarial.cases import exhaustion_admin as exhaustion_admin  # isort: skip
from bitactor.validation.adversarial.cases import deployment as deployment  # isort: skip
