# SPDX-License-Identifier: Apache-2.0
"""Every error the runtime raises on purpose, and the HTTP status each one becomes.

    RuntimeFailure
    ├── InvalidRequest    400  the client can mend it
    │   └── ContentWithheld    the model's safety checker flags an image
    ├── ConfigError       -    the service cannot start like this; the message names field, value and rule
    ├── ModelUnavailable  -    the weights cannot be had
    │   ├── ModelNotFound      there is no such model, revision, folder or file
    │   ├── ModelForbidden     there is one, and we are not let in
    │   └── ModelInvalid       there is one, and this runtime cannot serve it: damaged, or of another kind
    └── GenerationFailed  500  this picture failed; the engine serves on

Messages never hold a prompt: they reach logs and status. The operator tells model errors apart by the names of
their classes, which it reads in Ray's tracebacks.
"""


class RuntimeFailure(Exception):
    """Base of all of them."""


class InvalidRequest(RuntimeFailure):
    """A request breaks a rule.

    Attributes:
        param: the field or query parameter to blame, None for the body as a whole.
        code: one word for scripts.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        self.param = param
        self.code = code
        super().__init__(message, param, code)

    def __str__(self) -> str:
        """The message alone; all arguments stay in `args`, so that the error survives pickling."""
        return str(self.args[0])


class ContentWithheld(InvalidRequest):
    """The model's safety checker flags an image of the request; none is handed out."""

    @classmethod
    def image(cls, index: int, count: int) -> "ContentWithheld":
        """The error for one image, by its place among those of the request, from 0."""
        return cls(
            f"prompt: the model's safety checker rejected image {index} of {count} (the first image is 0);"
            " send another prompt or seed",
            "prompt",
            "content_policy_violation",
        )


class ConfigError(RuntimeFailure):
    """The configuration asks for what this runtime cannot do."""


class ModelUnavailable(RuntimeFailure):
    """The weights are missing, refused or not a diffusers folder."""


class ModelNotFound(ModelUnavailable):
    """There is no such model, revision, folder or file."""


class ModelForbidden(ModelUnavailable):
    """The source of the weights wants a licence accepted or another token."""


class ModelInvalid(ModelUnavailable):
    """The weights are there and cannot be served: a tensor is missing or wrong, or the pipeline needs more than a prompt."""


class GenerationFailed(RuntimeFailure):
    """A picture could not be made."""
