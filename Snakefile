# The graph of dvc.yaml, for several jobs at once: nothing is defined here a second time.
#
#   snakemake                                        on this machine (profiles/default)
#   snakemake --workflow-profile profiles/slurm      on a Slurm cluster
#
# DVC says what is out of date, Snakemake when and where it runs. Snakemake never sees the data:
# DVC replaces it as it likes (checkout, pull), so its file times mean nothing. In its place stand
# empty marks in .snakemake/dvc, which plan() sets and removes as DVC judges.

from pipeline.runtime.errors import user_errors_end
from pipeline.workflow.one_snakemake import refusal
from pipeline.workflow.graph import planned
from pipeline.workflow.snakemake import NO_TOUCH, force, not_of_its_notes, plan
from snakemake.logging import logger

several_nodes = config.get("nodes") == "several"
if config.get("nodes", "several") != "several":
    raise WorkflowError(f"--config: found nodes={config['nodes']}, expected nodes=several, or nothing")
if not several_nodes and workflow.remote_exec:
    raise WorkflowError("jobs on other nodes need --config nodes=several, as in profiles/slurm")
with user_errors_end():
    stages = plan() if workflow.is_main_process else planned()
logger.addFilter(not_of_its_notes)


onstart:  # not of a dry run
    if refusal() is not None:
        raise WorkflowError(refusal())
    if workflow.touch:
        raise WorkflowError(NO_TOUCH)
    with user_errors_end():
        chosen = workflow.dag_settings
        targets = chosen.targets if chosen.forcetargets else ()
        force({*chosen.forcerun, *targets}, every=chosen.forceall)
    if several_nodes:
        shell("env -u PYTHONSAFEPATH python -m pipeline doctor || true")


rule all:
    default_target: True
    input:
        [stage.done for stage in stages],


for stage in stages:

    rule:
        name:
            stage.rule
        input:
            [ancient(path) for path in stage.needs_done],
        output:
            stage.computed if several_nodes else touch(stage.done),
        params:
            stage=stage.name,
            action="compute" if several_nodes else "repro",
        threads: stage.threads
        # on its node a job is not retried; where dvc.yaml says nothing the profile does
        retries: 0 if workflow.remote_exec else stage.retries
        resources:
            **stage.resources,
        shell:
            "exec env -u PYTHONSAFEPATH python -m pipeline.workflow.jobs {params.action} {params.stage}"

    if several_nodes:

        rule:
            name:
                f"commit__{stage.rule}"
            localrule: True
            input:
                ancient(stage.computed),
            output:
                touch(stage.done),
            params:
                stage=stage.name,
            shell:
                "exec env -u PYTHONSAFEPATH python -m pipeline.workflow.jobs commit {params.stage}"
