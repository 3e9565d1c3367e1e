"""What must never be read in an audit row is taken out before the row is made.

Layers, from the surest to the last resort: fields that the author declared; ``format: password`` and
``writeOnly`` in the schema; key words; the shapes of known tokens; inline forms such as
``Authorization: …``; and taint, which finds every value that an earlier layer hid, or that a vault gave,
wherever it turns up again.
"""

from portoser.audit.redaction.redactor import FAILED, Redactor
from portoser.audit.redaction.taint import PLACEHOLDER, Taint

__all__ = ["FAILED", "PLACEHOLDER", "Redactor", "Taint"]
