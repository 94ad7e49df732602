"""What goes out: part files and numbered frames, and their join with everything else that the source holds.

* `profiles`  how results are encoded
* `disk`      writing that fails honestly
* `frames`    numbered frames
* `encode`    part files
* `matroska`  what PyAV cannot say to the Matroska muxer
* `streams`   sound, subtitles and the rest, carried over
* `join`      parts and streams to one output
"""
