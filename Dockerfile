# Python and exactly the versions of requirements.lock; no code and no data: mount the checkout at /project.
#
#   docker build --tag noise-space .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/project" noise-space dvc repro
#
# Apptainer: docs/cluster.md, "Containers".
FROM python:3.11-slim-bookworm

# git: DVC and the report ask it for commits. make: the Makefile's targets.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /project

COPY requirements.lock /opt/requirements.lock
RUN python -m pip install --no-cache-dir --requirement /opt/requirements.lock

# What libraries keep lies in the checkout's .cache, as docs/cluster.md says, so that any user may write it.
# USER: DVC asks for a name, and the number that --user gives has none here.
ENV HOME=/project/.cache/home \
    USER=container \
    XDG_CACHE_HOME=/project/.cache \
    MPLCONFIGDIR=/project/.cache/matplotlib \
    DVC_SITE_CACHE_DIR=/project/.cache/dvc \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /project
CMD ["python", "-m", "pipeline"]
