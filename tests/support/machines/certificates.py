"""Certificates for a Dask cluster, as its owner would make them."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Security


def write_certificates(folder: Path, name: str) -> Security:
    """A certificate that signs itself, as files of all roles in a cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number())
    built = built.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = built.sign(key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
    roles = {f"tls_{role}_cert": str(folder / f"{name}.pem") for role in ("client", "scheduler", "worker")}
    roles |= {f"tls_{role}_key": str(folder / f"{name}.key") for role in ("client", "scheduler", "worker")}
    return Security(tls_ca_file=str(folder / f"{name}.pem"), require_encryption=True, **roles)
