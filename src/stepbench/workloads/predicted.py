"""What a decoder's step is predicted to allocate, and whether that fits."""

from __future__ import annotations

from stepbench.measure import fit, predicted_memory
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline
from stepbench.workloads import step
from stepbench.workloads.spec import StepSpec

WATCHED_BY = "fake tensors"
DEVICES = ("cuda", "cpu")


def predict(spec: StepSpec, setting: Setting) -> Timeline:
    """Return the predicted timeline of such a step after the first.

    Raises:
        UnsupportedError: the device cannot do what is asked for, or the step cannot be predicted.
    """
    if (reason := unsupported_reason(spec, setting.device)) is not None:
        raise UnsupportedError(reason)
    return predicted_memory.predict(lambda: step.build(spec, setting, steps=1, with_scaler=False))


def unsupported_reason(spec: StepSpec, device: str) -> str | None:
    """Return why the memory of such a step cannot be looked at on `device`, or None if it can."""
    if device not in DEVICES:
        return f"memory is watched on {' and '.join(DEVICES)}, got {device}"
    if spec.implementation != "eager":
        return f"memory is predicted of eager steps, got {spec.implementation}"
    return step.unsupported_reason(spec, device)


def check_fit(spec: StepSpec, setting: Setting, timeline: Timeline | None = None) -> None:
    """Refuse a step that is predicted not to fit on the device, where predictions are trusted.

    Nothing is predicted where nothing would follow from it, such as on a CPU: the machinery of fake tensors alone takes
    1.3 s to import.

    Args:
        spec: the step.
        setting: with the device.
        timeline: the prediction, where there is one already.

    Raises:
        PredictedOutOfMemoryError: it does not fit.
        UnsupportedError: the device cannot do what is asked for.
    """
    if not setting.trust_prediction or fit.capacity_bytes(setting.device) is None:
        return
    if timeline is None and spec.implementation != "eager":
        return
    fit.check((timeline or predict(spec, setting)).scalars()["peak_memory_bytes"], setting.device)
