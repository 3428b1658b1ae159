# Python and exactly the versions of requirements.lock; no code and no data: mount the checkout at /work.
#
#   docker build --tag noise-space .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/work" noise-space dvc repro
#
# Apptainer: docs/cluster.md, "Containers".
FROM python:3.11-slim-bookworm

# git: DVC and the report ask it for commits. make: the Makefile's targets.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /work

COPY requirements.lock /opt/requirements.lock
RUN python -m pip install --no-cache-dir --requirement /opt/requirements.lock

# What libraries keep lies in the checkout's .cache, as docs/cluster.md says, so that any user may write it.
ENV HOME=/work/.cache/home \
    XDG_CACHE_HOME=/work/.cache \
    MPLCONFIGDIR=/work/.cache/matplotlib \
    DVC_SITE_CACHE_DIR=/work/.cache/dvc \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /work
CMD ["python", "-m", "pipeline"]
