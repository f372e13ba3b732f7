"""What was seen of a stream, as a line of ``watch.jsonl`` has it."""

STREAM = {
    "stream/images_per_s": 12.5,
    "stream/window_blocks": 7,
    "stream/window_capacity": 99,
    "stream/server_utilisation": 0.5,
    "stream/servers": 2,
    "stream/servers_answering": 2,
    "stream/waiting_s": 1.5,
}
