"""Places in the network: which are meant by a pattern, and how far away they are, however they are written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.network import Place, Reach, host_of, place_of, place_pattern, plain, reach_of


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "2130706433", "0x7f000001", "0X7F.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001",
     "127.0.0.0x1", "127.0.0.1.", "::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:7f00:0001"],
)  # fmt: skip
def test_an_address_is_the_same_however_it_is_written(text: str) -> None:
    assert host_of(text) == ipaddress.IPv4Address("127.0.0.1")


@pytest.mark.parametrize("text", ["API.Example.com", "api.example.com."])
def test_a_name_is_the_same_in_any_case_and_with_a_final_dot(text: str) -> None:
    assert host_of(text) == "api.example.com"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..b", "-a.com", "a b.com", "a%2eb.com", "a\\b", "1.2.3.4.5", "256.1.1.1", "1.2.3.256",
     "4294967296", "1.2.65536", "09.1.1.1", "fe80::1%eth0", ":::", "a" * 64 + ".com", "a." * 130 + "com", "ünï.example",
     "user@host", "[::1]", "example.0x"],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|names a network interface"):
        host_of(text)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        *((each, Reach.PRIVATE) for each in ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1",
          "127.255.255.254", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1")),
        *((each, Reach.NEVER) for each in ("169.254.169.254", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1",
          "240.0.0.1", "192.0.0.192", "198.18.0.1", "203.0.113.1", "100.100.100.200", "168.63.129.16", "::", "fe80::1",
          "fec0::1", "ff02::1", "::127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
          "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "100::1", "fd00:ec2::254", "4000::1",
          "2606:2800::5efe:7f00:1", "2606:2800::200:5efe:7f00:1")),
    ],
)  # fmt: skip
def test_how_far_away_an_address_is(address: str, reach: Reach) -> None:
    assert reach_of(ipaddress.ip_address(address))[0] is reach


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_python_does_not_call_global_is_never_public(address: ipaddress.IPv4Address) -> None:
    if reach_of(address)[0] is Reach.PUBLIC:
        assert plain(address).is_global
        assert not plain(address).is_multicast


@pytest.mark.parametrize(
    ("pattern", "place", "is_meant"),
    [
        ("api.example.com:443", Place("api.example.com", 443), True),
        ("API.example.com.:443", Place("api.example.com", 443), True),
        ("api.example.com:443", Place("api.example.com", 80), False),
        ("api.example.com:*", Place("api.example.com", 80), True),
        ("api.example.com:443", Place("api.example.com.evil.org", 443), False),
        ("*.example.com:443", Place("a.b.example.com", 443), True),
        ("*.example.com:443", Place("example.com", 443), False),
        ("*.example.com:443", Place("evilexample.com", 443), False),
        ("*:443", Place("api.example.com", 443), True),
        ("*:443", Place(ipaddress.ip_address("93.184.216.34"), 443), False),
        ("10.0.0.0/8:443", Place(ipaddress.ip_address("10.1.2.3"), 443), True),
        ("10.0.0.0/8:443", Place(ipaddress.ip_address("11.1.2.3"), 443), False),
        ("10.0.0.0/8:443", Place("db.internal", 443), False),
        ("0x7f.1:80", Place(ipaddress.ip_address("127.0.0.1"), 80), True),
        ("[::1]:80", Place(ipaddress.ip_address("::1"), 80), True),
        ("[fd00::/8]:80", Place(ipaddress.ip_address("fd12::1"), 80), True),
        ("[fd00::/8]:80", Place(ipaddress.ip_address("10.0.0.1"), 80), False),
    ],
)
def test_which_places_a_pattern_means(pattern: str, place: Place, is_meant: bool) -> None:
    assert place_pattern(pattern).matches(place) is is_meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("api.example.com", "names no port; write for example api.example.com:443"),
        ("[::1]", "names no port"),
        ("https://api.example.com", "is a URL; name the host and its port alone"),
        ("api.example.com:443/v1", "is a URL"),
        ("api.example.com:https", "'https' is not a port; ports are 1 to 65535, or \\* for all"),
        ("api.example.com:0", "is not a port"),
        ("api.example.com:65536", "is not a port"),
        ("::1:80", "an IPv6 address stands in brackets"),
        ("10.0.0.1/8:443", "10.0.0.1/8 has host bits set; write for example api.example.com:443, or 10.0.0.0/8:443"),
        ("bücher.example:443", "write the name's form that begins with xn--"),
        ("a b.com:443", "is not a host's name"),
        ("*.exa mple.com:443", "is not a pattern of names"),
        ("256.0.0.1:80", "is not an IPv4 address"),
        ("[::ffff:10.0.0.0/104]:80", "write it as IPv4"),
        ("169.254.169.254:80", "cannot be reached, whatever grants it: the address is link-local"),
        ("[fe80::/10]:80", "cannot be reached"),
        ("", "names no port"),
    ],
)
def test_what_is_no_pattern_is_told_with_what_would_be(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place_pattern(text)


@pytest.mark.parametrize("text", ["api.example.com:443", "10.0.0.1:80", "[fd12::1]:8080"])
def test_a_place_is_read_as_it_is_written(text: str) -> None:
    assert str(place_of(text)) == text
    assert place_pattern(text).matches(place_of(text))


def test_a_pattern_of_all_addresses_is_one_though_some_of_them_are_never_reached() -> None:
    for text, address in (("0.0.0.0/0:80", "93.184.216.34"), ("[::/0]:80", "2606:2800::1")):
        assert place_pattern(text).matches(Place(ipaddress.ip_address(address), 80))


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*.example.com:443", "api.example.com:443", True),
        ("*.example.com:443", "*.example.com:443", True),
        ("*.example.com:443", "*.example.com:*", False),
        ("*.example.com:*", "api.example.com:443", True),
        ("api.example.com:443", "*.example.com:443", False),
        ("10.0.0.0/8:443", "10.1.0.0/16:443", True),
        ("10.1.0.0/16:443", "10.0.0.0/8:443", False),
        ("*:443", "10.0.0.1:443", False),
        ("10.0.0.0/8:443", "[fd00::/8]:443", False),
        ("10.0.0.0/8:443", "db.internal:443", False),
    ],
)
def test_whether_a_pattern_covers_another(wide: str, narrow: str, covers: bool) -> None:
    assert place_pattern(wide).covers(place_pattern(narrow)) is covers
