"""Send operations to Vespa: many at once over few connections, as many as Vespa accepts, with safe retries.

    transport.py    HTTP/2 by libcurl: operations out, answers in
    verdicts.py     what an answer means
    throttle.py     how many operations may be in flight
    retrying.py     how often and when an operation is retried
    breaker.py      whether anything may be sent at all
    operations.py   requests of document/v1
    jobs.py         the operations of one document
    dispatcher.py   which operation is next; no input or output, no thread
    sender.py       the thread that runs these
    statistics.py   counts and latencies

The behaviour is modelled on the feed client of Vespa's own command line.
"""
