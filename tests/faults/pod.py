# SPDX-License-Identifier: Apache-2.0
"""`python pod.py TOKEN_FILE`: the operator as in a pod, with the API server of KUBECONFIG.

A pod reads its token, the authority and the API server's address from fixed paths. This script changes these paths.
"""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import kopf
import yaml
from kubernetes.aio.config import incluster_config

from sd_operator.__main__ import main


def _move(token: Path, kubeconfig: Path) -> None:
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    server, authority = cluster["server"], cluster["certificate-authority"]
    address = urlparse(server)
    incluster_config.SERVICE_TOKEN_FILENAME = str(token)
    incluster_config.SERVICE_CERT_FILENAME = authority
    os.environ["KUBERNETES_SERVICE_HOST"] = str(address.hostname)
    os.environ["KUBERNETES_SERVICE_PORT"] = str(address.port)

    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=server, ca_path=authority, token=token.read_text().strip())

    kopf.login_with_service_account = login


if __name__ == "__main__":
    _move(Path(sys.argv[1]), Path(os.environ.pop("KUBECONFIG")))
    sys.exit(main())
