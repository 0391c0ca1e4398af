"""What a decoder's step is predicted to allocate, and whether that fits."""

from __future__ import annotations

from collections.abc import Callable

from stepbench.measure import fit, predicted_memory
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline, WatchedStep
from stepbench.models import costs
from stepbench.models.own import OwnModel
from stepbench.models.sizes import ModelSize
from stepbench.own_code import OwnCodeError
from stepbench.workloads import step
from stepbench.workloads.spec import StepSpec

WATCHED_BY = "fake tensors"
DEVICES = ("cuda", "cpu")


class UnpredictableError(UnsupportedError):
    """Code of the user's own does not run on fake tensors; whoever can measure the step measures it unpredicted."""


def predict(spec: StepSpec, setting: Setting) -> Timeline:
    """Return the predicted timeline of such a step after the first.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
        UnpredictableError: code of the user's own needs values.
    """
    if (reason := unsupported_reason(spec, setting.device)) is not None:
        raise UnsupportedError(reason)
    steps = 2 if isinstance(spec.size, OwnModel) else 1  # see `Step.prime`
    return on_fake_tensors(spec, lambda: step.build(spec, setting, steps=steps, with_scaler=False))


def on_fake_tensors(spec: StepSpec, make: Callable[[], WatchedStep]) -> Timeline:
    """Return the predicted timeline of a step after the first.

    Args:
        spec: what `make` builds.
        make: builds the step; all its tensors are fake.

    Raises:
        UnpredictableError: code of the user's own runs in the step, and it does not run without values.
    """
    try:
        return predicted_memory.predict(make)
    except UnsupportedError:
        raise
    except Exception as error:
        # What is wrong on real tensors too, such as a mask of the model's own, says so itself. Anything else may have
        # been raised because fake tensors have no values.
        if not spec.runs_own_code or (isinstance(error, OwnCodeError) and error.__cause__ is None):
            raise
        line = next((each.strip() for each in str(error).splitlines() if each.strip()), "")
        whose = spec.size.source if isinstance(spec.size, OwnModel) else spec.attention
        raise UnpredictableError(
            f"the memory of `{whose}` cannot be predicted: on tensors without values it raises "
            f"{type(error).__name__}{': ' if line else ''}{line}"
        ) from error


def unsupported_reason(spec: StepSpec, device: str) -> str | None:
    """Return why the memory of such a step cannot be looked at on `device`, or None if it can."""
    if device not in DEVICES:
        return f"memory is watched on {' and '.join(DEVICES)}, got {device}"
    if spec.implementation != "eager":
        return f"memory is predicted of eager steps, got {spec.implementation}"
    return step.unsupported_reason(spec, device)


def most_bytes(size: ModelSize, spec: StepSpec) -> int:
    """Return more than a step of such a decoder allocates, by formula, whatever its attention saves."""
    tokens = spec.batch * spec.context
    state = 16 * costs.parameters(size, spec.vocabulary)
    per_token = size.layers * (240 * size.d_model + 32 * size.heads * spec.context) + 24 * spec.vocabulary
    return state + tokens * per_token


def _is_far_below(spec: StepSpec, capacity_bytes: int) -> bool:
    """Return whether a step certainly fits, so that nothing need be predicted; of a model of one's own nobody knows."""
    return isinstance(spec.size, ModelSize) and 2 * most_bytes(spec.size, spec) < capacity_bytes


def check_fit(spec: StepSpec, setting: Setting, timeline: Timeline | None = None) -> None:
    """Refuse a step that is predicted not to fit on the device, where predictions are trusted.

    Nothing is predicted where nothing would follow from it, such as on a CPU or for a step of a few megabytes: the
    machinery of fake tensors alone takes 1.3 s to import. Code of the user's own that cannot be predicted is started.

    Args:
        spec: the step.
        setting: with the device.
        timeline: the prediction, where there is one already.

    Raises:
        PredictedOutOfMemoryError: it does not fit.
        UnsupportedError: the device cannot do what is asked for.
    """
    capacity_bytes = fit.capacity_bytes(setting.device)
    if not setting.trust_prediction or capacity_bytes is None or setting.device not in DEVICES:
        return
    if timeline is None and (spec.implementation != "eager" or _is_far_below(spec, capacity_bytes)):
        return
    try:
        timeline = timeline or predict(spec, setting)
    except UnpredictableError:
        return
    fit.check(timeline.scalars()["peak_memory_bytes"], setting.device)
