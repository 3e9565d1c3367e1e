"""The reconciler: brings a git-tracked folder of tools into the registry, and keeps it there.

Data passes once, left to right::

    sources/*  →  manifest  →  admission  →  plan  →  guards  →  the registry  →  report
    files         tools or     schemas       changes  reasons    one              text, JSON,
                  problems                            to wait    transaction      Markdown

A source says when it may have changed and what is in it (`sources.base`). `manifest` turns its files into declared
tools, groups and the policy, or into problems with file, line and advice: `yaml_text` and `python_text` read texts,
`documents` and `tool_fields` what they say, `linking` brings a manifest and its code together, `rest` does the same
for a tool that comes over REST. Admission, which is not of this package, learns schemas in worker processes. `plan`
compares what is wanted with what is registered, `guards` say why a plan may not be applied without somebody's
approval, `report` tells of it. `settling` and `withheld` say what of a source has to wait. `steps` are the steps of
one run in their order, `workshop` is what they work with, `reconciler` is the loop around them, `leader` decides
which replica runs, `ledger` writes down what became of a run, `status` how a source stands.

What it never does: run or import tool code; delete because something could not be read; change what another owner
has; apply half of a plan. `manifest`, `plan`, `guards`, `settling`, `withheld` and `report` are pure.
"""
