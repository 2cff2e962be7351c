"""Pre-train a T5 for your language: raw text in, a Hugging Face T5 out.

The stages are public functions in :mod:`t5smith.api`; the command ``t5smith`` is a thin wrapper of them.
"""

from t5smith.base.errors import T5smithError

__all__ = ["T5smithError", "__version__"]
__version__ = "0.1.0"
