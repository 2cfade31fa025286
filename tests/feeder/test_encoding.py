"""The thread that encodes."""

import threading

from feeder import Splitting
from feeder.encoding.batches import HereEncoding


def test_the_batch_under_way_is_done_when_it_is_closed(monkeypatch):
    """Its encoder's cache is closed next."""
    begun, free, done = threading.Event(), threading.Event(), []

    def encode(batch, *_):
        begun.set()
        free.wait(10)
        done.append(batch)
        return []

    monkeypatch.setattr("feeder.encoding.batches.encode_batch", encode)
    encoding = HereEncoding(Splitting(), None, None)
    waiting = [encoding.submit([]) for _ in range(3)]
    begun.wait(10)
    threading.Timer(0.05, free.set).start()
    encoding.close()
    assert done == [[]] and waiting[2].cancelled()
