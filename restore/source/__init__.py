"""What comes in: films and numbered sequences, probed and decoded without a change to their code values.

* `numbered`  the files of a numbered sequence
* `tags`      what the code values of a frame mean
* `planes`    luma and chroma planes of any pixel format
* `probe`     what a source is
* `clock`     the time of each frame
* `decode`    frames from the start, or exactly those of a span
* `fields`    whether a film is interlaced
"""
