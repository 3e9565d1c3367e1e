"""Where requests of tools get to: which addresses a name may lead to, and whose certificates are believed."""

import ssl
from pathlib import Path

import pytest
from http_world import Network, Server, serving, web
from powers_world import rule

from portoser.catalog.errors import PowerError
from portoser.powers.base import PowerRefused


async def test_a_name_leads_to_this_machine_only_where_the_rule_says_private(server: Server) -> None:
    server.says("/", b"inside")
    network = Network({"inside.example.com": ["127.0.0.1"]})
    url = f"http://inside.example.com:{server.port}/"
    async with web("inside.example.com:*", network=network) as call:
        with pytest.raises(PowerRefused, match=r"leads to 127\.0\.0\.1, and that is not a public.*private: true"):
            await call.get(url)
    assert network.connected == []
    async with web("inside.example.com:*", network=network, private=True) as call:
        assert (await call.get(url))["content"] == b"inside"
    assert network.connected == ["127.0.0.1"]
    assert server.asked[0].headers["host"] == f"inside.example.com:{server.port}"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"],
)
async def test_a_name_with_any_private_address_is_refused(address: str) -> None:
    network = Network({"api.example.com": ["93.184.216.34", address]})
    async with web("api.example.com:443", network=network) as call:
        with pytest.raises(PowerRefused, match="is not a public address"):
            await call.get("https://api.example.com/")
    assert network.connected == []


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "0.0.0.0", "100.100.100.200", "fd00:ec2::254", "fe80::1%eth0", "::ffff:169.254.169.254",
     "224.0.0.1", "255.255.255.255", "2002:7f00:1::"],
)  # fmt: skip
async def test_a_clouds_metadata_and_what_is_no_host_are_refused_whatever_the_policy_says(address: str) -> None:
    network = Network({"api.example.com": [address]})
    async with web("api.example.com:80", "0.0.0.0/0:80", "[::/0]:80", network=network, private=True) as call:
        with pytest.raises(PowerRefused, match="cannot be reached"):
            await call.get("http://api.example.com/")
        if "%" not in address:
            literal = f"[{address}]" if ":" in address else address
            with pytest.raises(PowerRefused, match="cannot be reached"):
                await call.get(f"http://{literal}/")
    assert network.connected == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "[::1]", "[64:ff9b::a00:1]"])
async def test_a_rule_of_all_addresses_grants_no_private_one(address: str) -> None:
    async with web("0.0.0.0/0:80", "[::/0]:80") as call:
        with pytest.raises(PowerRefused, match=r"is not a public address.*private: true"):
            await call.get(f"http://{address}/")
    assert call.network.connected == []


async def test_a_name_that_changes_its_mind_is_asked_once_and_connected_to_where_it_was_checked(
    server: Server,
) -> None:
    class Rebinding(Network):
        async def resolve(self, name: str, port: int) -> list[str]:
            self.looked_up.append(name)
            return ["93.184.216.34"] if len(self.looked_up) == 1 else ["127.0.0.1"]

    server.says("/", b"outside")
    network = Rebinding(routes={"93.184.216.34": "127.0.0.1"})
    url = f"http://api.example.com:{server.port}/"
    async with web("api.example.com:*", network=network) as call:
        assert (await call.get(url))["content"] == b"outside"
        assert (network.looked_up, network.connected) == (["api.example.com"], ["93.184.216.34"])
        await call.get(url)  # over the connection that is there
        await call.power.aclose()
        with pytest.raises(PowerRefused, match="is not a public address"):
            await call.get(url)
    assert network.connected == ["93.184.216.34"]


async def test_a_connection_into_the_private_network_is_not_lent_to_who_may_not_make_it(server: Server) -> None:
    server.says("/", b"inside")
    network = Network({"api.example.com": ["127.0.0.1"]})
    url = f"http://api.example.com:{server.port}/"
    async with web("api.example.com:*", network=network, private=True) as call:
        await call.get(url)
        call.rules = (rule(network=["api.example.com:*"]),)
        with pytest.raises(PowerRefused, match="is not a public address"):
            await call.get(url)


async def test_an_address_after_one_that_does_not_answer_is_tried(server: Server) -> None:
    server.says("/", b"second")
    async with serving() as gone:
        pass
    network = Network({"api.example.com": ["127.0.0.2", "127.0.0.1", "127.0.0.2"]})
    assert gone.port
    async with web("api.example.com:*", network=network, private=True) as call:
        assert (await call.get(f"http://api.example.com:{server.port}/"))["content"] == b"second"
    assert network.connected == ["127.0.0.2", "127.0.0.1"]


# TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for api.example.com that vouches for itself."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_tls_is_verified_for_the_name_whatever_the_address(certificate: Path) -> None:
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate)
    network = Network({"api.example.com": ["127.0.0.1"], "other.example.com": ["127.0.0.1"]})
    places = ("*.example.com:*", "127.0.0.1:*")
    async with serving(of_server) as server:
        server.says("/", b"safe")
        async with web(*places, network=network, private=True) as call:
            with pytest.raises(PowerError, match=r"cannot connect: .*CERTIFICATE_VERIFY_FAILED"):
                await call.get(f"https://api.example.com:{server.port}/")
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with web(*places, network=network, private=True, tls=trusting) as call:
            assert (await call.get(f"https://api.example.com:{server.port}/"))["content"] == b"safe"
            for host in ("other.example.com", "127.0.0.1"):
                with pytest.raises(PowerError, match=r"CERTIFICATE_VERIFY_FAILED.*mismatch"):
                    await call.get(f"https://{host}:{server.port}/")


async def test_a_redirect_from_tls_to_none_is_not_followed(certificate: Path) -> None:
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate)
    async with serving(of_server) as server:
        server.redirects("/", f"http://api.example.com:{server.port}/")
        network = Network({"api.example.com": ["127.0.0.1"]})
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with web("api.example.com:*", network=network, private=True, tls=trusting) as call:
            with pytest.raises(PowerRefused, match="without TLS, which is not followed"):
                await call.get(f"https://api.example.com:{server.port}/")
