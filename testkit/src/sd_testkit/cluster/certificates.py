# SPDX-License-Identifier: Apache-2.0
"""The certificates of one control plane, and the key of its service account tokens."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
_SERVER_ADDRESSES = ("127.0.0.1", "10.96.0.1")


class Authority:
    """A certificate authority that writes signed certificates into a folder as NAME.crt and NAME.key (PEM)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(folder / "ca.crt")

    def client(self, name: str, user: str, group: str = "") -> None:
        """Issue a certificate that identifies a program as `user` of `group`.

        The certificate has a host name too. Without one, trustme writes an empty list of names and marks it critical.
        Go rejects such a certificate.
        """
        issued = self._authority.issue_cert("localhost", common_name=user, organization_name=group or None)
        self._write(name, issued)

    def server(self, name: str) -> None:
        """Issue the certificate of the API server."""
        self._write(
            name, self._authority.issue_cert(*_SERVER_NAMES, *_SERVER_ADDRESSES, common_name="kube-apiserver")
        )

    def _write(self, name: str, issued: trustme.LeafCert) -> None:
        issued.cert_chain_pems[0].write_to_path(self._folder / f"{name}.crt")
        issued.private_key_pem.write_to_path(self._folder / f"{name}.key")


def service_account_key(folder: Path) -> None:
    """Write the key that signs service account tokens: sa.key and sa.pub."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "sa.key").write_bytes(private)
    (folder / "sa.pub").write_bytes(public)
