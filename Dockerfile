# The service in an image: python's slim base, one virtual environment, nobody's root.
#   docker build -t merchant-delivery .
#   docker run --read-only --tmpfs /tmp -v deliveries:/data -p 8080:8080 --env-file settings.env merchant-delivery
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# The lock has three parts; the image runs on the first, the wheel is built with the second. Installed before our own
# files are copied, so that a change of ours leaves this layer as it is.
RUN sed '/^# --- build/,$d' requirements.lock > runtime.lock \
 && sed -n '/^# --- build/,/^# --- development/p' requirements.lock > build.lock \
 && python -m venv /opt/build \
 && python -m venv --without-pip /opt/venv \
 && /opt/build/bin/pip install --quiet --require-hashes -r build.lock \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --quiet --no-compile --require-hashes -r runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY service/ service/
COPY templates/ templates/
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --no-index dist/*.whl
# The base image has no byte code for Python's own library, and a read-only container could never keep any: every start
# and every health check would compile it again. All of it is made here, once, in a tree of its own.
RUN export PYTHONPYCACHEPREFIX=/opt/bytecode COMPILE='python -m compileall -q -j 0 --invalidation-mode unchecked-hash' \
 && $COMPILE -x '/(test|tests|idlelib|lib2to3|turtledemo|ensurepip|site-packages|dist-packages)/' \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && $COMPILE /opt/venv/lib
RUN mkdir /opt/data

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="merchant-delivery" \
      org.opencontainers.image.description="Delivers Kravia invoices on a merchant's behalf and captures them at Dintero" \
      org.opencontainers.image.licenses="MIT"
# A name for the user, because what an operator does in the container is recorded with it.
RUN echo 'delivery:x:10001:10001:merchant-delivery:/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'delivery:x:10001:' >> /etc/group
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/bytecode /opt/bytecode
COPY --from=build --chown=10001:10001 /opt/data /data
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/bytecode \
    HOME=/tmp \
    TMPDIR=/tmp \
    DELIVERY_ADMIN_HOST=0.0.0.0 \
    DELIVERY_ADMIN_PORT=9090
# The default of DELIVERY_DATABASE_URL is data/deliveries.db in the working directory: this one, on the volume. It is not set
# here, so that DELIVERY_DATABASE_URL_FILE may be.
WORKDIR /
VOLUME /data
EXPOSE 8080 9090
USER 10001:10001
STOPSIGNAL SIGTERM
# The admin port answers in `serve` and in `worker`; where it was taken away, `serve` still answers on its own. Not through urllib, which would ask a proxy from the environment for a
# page on this very machine.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('DELIVERY_ADMIN_PORT') or 8080), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["merchant-delivery"]
CMD ["serve"]
