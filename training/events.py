"""TensorBoard's files of a training, written in step with it.

tensorboardX's SummaryWriter writes in a thread, which a full disk ends without a word and leaves the training waiting
for. Its EventsWriter, below that, raises the error.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from runfolder import errors_of


class Events:
    """A new file in `folder`; TensorBoard hides what earlier ones tell of epochs from `first_epoch` on."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with errors_of(folder):
            self.writer = EventsWriter(str(folder / "events"))
            self.write(step=first_epoch, session_log=SessionLog(status=SessionLog.START))
            self.writer.flush()

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """train_loss becomes train/loss, and so on. On the disk when this returns."""
        with errors_of(self.folder):
            for name, value in values.items():
                self.write(step=epoch, summary=scalar(name.replace("_", "/", 1), value))
            self.writer.flush()

    def write(self, **content: object) -> None:
        self.writer.write_event(Event(wall_time=time.time(), **content))

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # closing writes what is left, and a disk that is full would hide the error that says so
            self.writer.close()
