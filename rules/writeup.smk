# The target for a report after some minutes, before the run that measures everything. It renders what is there.
rule first_report:
    input:
        is_first,


rule write_first:
    input:
        FIRST_RECORDS,
    output:
        markdown="report/first.md",
        html="report/first.html",
    log:
        "<results>/logs/first_report.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/write_first.py"


rule write_up:
    input:
        [getattr(rules, name).input for name in BENCH.names],
        "report/templates/writeup.md.j2",
        "report/templates/section.md.j2",
        "report/templates/summary.md.j2",
        "report/templates/writeup.html.j2",
        "report/templates/page.css",
        "report/templates/page.js",
        "report/sections.yaml",
        expand("report/captions/{name}.rst", name=BENCH.names),
        rendered("writeup"),
        comparison="report/comparison.json",
        changes="report/changes.json",
    output:
        markdown=report(
            "report/writeup.md",
            caption="../report/captions/writeup.rst",
            category="writeup",
        ),
        html="report/writeup.html",
        failures="report/failures.txt",
    log:
        "<results>/logs/writeup.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/write_up.py"


# A failed cell does not fail the report; it fails this rule, the last one of the default target.
rule all_measured:
    input:
        "report/failures.txt",
    output:
        touch("report/all_measured"),
    log:
        "report/all_measured.log",
    localrule: True
    resources:
        machine=1,
    shell:
        "cat {input:q} > {log:q}; test ! -s {input:q}"
