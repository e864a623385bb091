"""The package's own exceptions: each message says what was found, what was expected, what to do."""


class SmwmError(Exception):
    """Base of every error that a user can act on; the command line prints it without a traceback."""


class ContractError(SmwmError):
    """A robot contract that cannot be used, or data that does not agree with it."""


class DataError(SmwmError):
    """A bag, an episode store or a message that cannot be read or used."""


class CheckpointError(SmwmError):
    """A checkpoint that is missing, damaged, or made for another robot or model."""


class ConfigError(SmwmError):
    """A setting, preset or command-line value outside what is accepted."""


class TrainingError(SmwmError):
    """A training run that cannot go on: its loss or its latent is not healthy."""


class PlanningError(SmwmError):
    """A plan that cannot be made."""


class SimulationError(SmwmError):
    """A simulated robot that cannot be built, rendered or stepped."""


class StackError(SmwmError):
    """A process of a running system that would not start, died, or did not answer."""
