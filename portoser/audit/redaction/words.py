"""Which keys name a secret, by the words they are made of.

``apiKey``, ``DB_PASSWORD`` and ``X-Auth-Token`` do; ``author``, ``compass``, ``max_tokens`` and
``token_path`` do not.
"""

import re
import unicodedata
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+")

_LONGEST_KEY = 128
"""What of a longer key is looked at, from its end, where its noun stands."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET = _words(
    """
    password passwords passwd pwd pass passphrase passcode passkey secret secrets token credential credentials cred
    creds authorization auth cookie cookies bearer jwt otp totp cvv cvc apikey apikeys mnemonic passwort kennwort
    contraseña contrasena senha пароль 密码 密碼 パスワード
    """
)

_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "credential",
    "apikey",
    "secretkey",
    "privatekey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "accesstoken",
    "authtoken",
    "clientsecret",
)
"""What makes a secret of a word that was written without a boundary, as in ``dbpassword``."""

_ENDINGS = ("token", "secret", "pwd")

_KINDS_OF_KEY = _words(
    """
    api access secret private signing encryption decryption master ssh account auth service shared license deploy
    storage hmac aes rsa gpg pgp session symmetric webhook crypto client app application admin root
    """
)
"""What makes a secret of the ``key`` that follows it."""

_PAIRS = frozenset({("secret", "id"), ("connection", "string"), ("seed", "phrase"), ("pin", "code")})

_ABOUT = _words(
    """
    path paths file files filename dir directory folder url urls uri endpoint endpoints host name names id ids type
    types kind length len size count counts limit limits budget usage ttl expiry expires expiration lifetime age
    policy policies enabled disabled required optional supported version mode status state field fields regex
    pattern format prompt label placeholder title description help provider scheme method algorithm alg issuer
    audience scope scopes at on date time timestamp rotation strength score column ref reference location store
    manager engine backend index position offset rate price cost per used left remaining
    """
)
"""Nouns that make a key speak *about* a secret without holding it."""

_QUANTITIES = _words("max min num total n avg count prompt completion input output cached reasoning per limit")


class Sensitivity(IntEnum):
    """What a key says of its value."""

    NONE = 0
    SECRET = 1
    UNLESS_NUMBER = 2
    """``tokens``: a secret where it holds text, a count where it holds a number."""


def sensitivity(key: str) -> Sensitivity:
    """Whether a key names a secret."""
    return _sensitivity(key if len(key) <= _LONGEST_KEY else key[-_LONGEST_KEY:])


@lru_cache(maxsize=4096)
def _sensitivity(key: str) -> Sensitivity:
    if not key.isascii():
        key = unicodedata.normalize("NFKC", key)
    words = [word.lower() for word in _WORD.findall(key)]
    if not words:
        return Sensitivity.NONE
    if any(pair in _PAIRS for pair in pairwise(words)):
        return Sensitivity.SECRET
    if words[-1] in _ABOUT:
        return Sensitivity.NONE
    if "tokens" in words or ("token" in words and not _QUANTITIES.isdisjoint(words)):
        return Sensitivity.UNLESS_NUMBER
    return Sensitivity.SECRET if _names_secret(words) else Sensitivity.NONE


def _names_secret(words: list[str]) -> bool:
    if not _SECRET.isdisjoint(words):
        return True
    for before, word in pairwise(words):
        if word in {"key", "keys"} and before in _KINDS_OF_KEY:
            return True
    return any(word.endswith(_ENDINGS) or any(part in word for part in _PARTS) for word in words if len(word) > 5)
