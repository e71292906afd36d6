"""Count the words of a text with Apache Beam.

    python wordcount.py --input=TEXT --output=DIRECTORY [--runner=… and Beam's other options]

Writes `DIRECTORY/part-00000-of-00001`, a line `word<TAB>count` for each distinct word, in no promised
order. There is one shard on purpose: Beam writes it beside the final name and renames it when it is
complete, so a reader finds all the words or none, and never those of two runs mixed.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
"""A word of a lower-cased line: the rule of this DAG, see its README.md."""


class CountWords(beam.DoFn):
    """Lines -> (word, count), one pair a word and bundle.

    Counting here and not in `Count.PerElement` keeps the elements between transforms few: a book's
    thirteen thousand distinct words and not its near million, which takes a third off the run.
    """

    def start_bundle(self) -> None:
        """Begin a bundle with no words."""
        self.counts: Counter[str] = Counter()

    def process(self, line: str) -> None:
        """Count the words of a line; nothing leaves before the bundle's end."""
        self.counts.update(WORD.findall(line.lower()))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Hand on what the bundle held. Outside `process` Beam wants the window named."""
        for pair in self.counts.items():
            yield GlobalWindows.windowed_value(pair)


def line_of(word: str, count: int) -> str:
    """The line of the output that holds a word."""
    return f"{word}\t{count}"


def run(arguments: Sequence[str]) -> None:
    """Build the pipeline, run it and wait for its end."""
    parser = argparse.ArgumentParser(description="Count the words of a text.")
    parser.add_argument("--input", required=True, help="the text; .gz and the like are unpacked by suffix")
    parser.add_argument("--output", required=True, help="the directory for the counts")
    own, beams = parser.parse_known_args(arguments)
    with beam.Pipeline(options=options_of(beams)) as pipeline:
        (
            pipeline
            | "Read" >> beam.io.ReadFromText(own.input)
            | "Count" >> beam.ParDo(CountWords()).with_output_types(tuple[str, int])
            | "Sum" >> beam.CombinePerKey(sum)
            | "Format" >> beam.MapTuple(line_of)
            | "Write" >> beam.io.WriteToText(FileSystems.join(own.output, "part"), num_shards=1)
        )


def options_of(arguments: Sequence[str]) -> PipelineOptions:
    """Return Beam's options; for a run on this machine, those of its runner in pure Python."""
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        # Since Beam 2.68 DirectRunner downloads a runner in Go (Prism) and hands the job to that; this
        # is the one inside Beam itself, which starts at once and needs no network (apache/beam#34612).
        standard.runner = "FnApiRunner"
    return options


if __name__ == "__main__":
    run(sys.argv[1:])
