# SPDX-License-Identifier: Apache-2.0
"""The errors that the runtime raises, and the HTTP status of each one.

    RuntimeFailure
    ├── InvalidRequest    400  the client can correct the request
    │   └── ContentWithheld    the model's safety checker rejected an image
    ├── ConfigError       -    the service cannot start with this configuration; the message names field, value and rule
    ├── ModelUnavailable  -    the weights cannot be fetched or loaded
    │   ├── ModelNotFound      the model, revision, folder or file does not exist
    │   ├── ModelForbidden     the source denies access to the model
    │   └── ModelInvalid       this runtime cannot serve the model: it is damaged or needs more than a prompt
    └── GenerationFailed  500  this image failed; the engine continues

Messages never contain a prompt, because they reach logs and status. The operator distinguishes model errors by their
class names, which it reads in Ray's tracebacks.
"""


class RuntimeFailure(Exception):
    """Base class of all errors of the runtime."""


class InvalidRequest(RuntimeFailure):
    """A request breaks a rule.

    Attributes:
        param: the field or query parameter with the error, None for the body as a whole.
        code: the error code, for scripts.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        self.param = param
        self.code = code
        super().__init__(message, param, code)

    def __str__(self) -> str:
        """The message only. All arguments stay in `args`, so that the error can be pickled."""
        return str(self.args[0])


class ContentWithheld(InvalidRequest):
    """The model's safety checker rejected an image of the request. The client gets none of the request's images."""

    @classmethod
    def image(cls, index: int, count: int) -> "ContentWithheld":
        """The error for one image of a request.

        Args:
            index: number of the image in the request, from 0.
            count: number of images in the request.
        """
        return cls(
            f"prompt: the model's safety checker rejected image {index} of {count} (the first image is 0);"
            " send another prompt or seed",
            "prompt",
            "content_policy_violation",
        )


class ConfigError(RuntimeFailure):
    """The configuration requires something that this runtime does not support."""


class ModelUnavailable(RuntimeFailure):
    """The weights cannot be fetched, or are not a diffusers folder that loads."""


class ModelNotFound(ModelUnavailable):
    """The model, revision, folder or file does not exist."""


class ModelForbidden(ModelUnavailable):
    """The source of the weights requires an accepted licence or another token."""


class ModelInvalid(ModelUnavailable):
    """The weights exist but cannot be served: a tensor is missing or wrong, or the pipeline needs more than a prompt."""


class GenerationFailed(RuntimeFailure):
    """An image could not be generated."""
