"""Where deliveries are let to."""

import pytest

from infrastructure.webhooks.addresses import is_allowed
from infrastructure.webhooks.urls import UrlRefused, checked

LOCAL = ["127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "172.31.255.255", "192.168.0.1", "fd12::1"]
NEVER = [
    *("0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "100.64.0.1", "100.100.100.200"),
    *("224.0.0.1", "ff02::1", "255.255.255.255", "192.0.0.192", "198.18.0.1", "203.0.113.9"),
    *("168.63.129.16", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1"),
    *("2001:db8::1", "fec0::1", "not an address", ""),
]  # fmt: skip
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("address", LOCAL)
def test_local_addresses_are_for_development_only(address: str) -> None:
    assert is_allowed(address, allows_local=True)
    assert not is_allowed(address, allows_local=False)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_for_nobody(address: str) -> None:
    assert not is_allowed(address, allows_local=True)
    assert not is_allowed(address, allows_local=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_everybody(address: str) -> None:
    assert is_allowed(address, allows_local=False)


NEVER_A_URL = [
    *("", "hooks", "ftp://shop.example/", "file:///etc/passwd", "gopher://shop.example", "https://"),
    *("https:///hooks", "javascript:alert(1)", "//shop.example/", "https://user:pw@shop.example/"),
    *("https://user@shop.example/", "https://shop.example/#part", "https://shop.example:0/"),
    *("https://shop.example:65536/", "https://shop.example:x/", "https://shop.example:/"),
    *("https://shop .example/", "https://shop.example/a b", "https://shop.example\\@evil.example/"),
    *("https://shöp.example/", "https://shop.example/é", "https://shop..example/", "https://[::1/"),
    *("https://[::1]:x/", "https://169.254.169.254/", "https://[fe80::1]/", "https://0.0.0.0/"),
    *("https://127.1/", "https://2130706433/", "https://[::ffff:10.0.0.1]/", "https://%31/"),
    *("https://shop.example/%zz", "https://-shop.example/", "https://shop.example/\"", "https://."),
    "https://shop.example/" + "x" * 2048,
]  # fmt: skip
PUBLIC_ONLY = [
    *("http://shop.example/", "https://127.0.0.1/", "https://[::1]/", "https://localhost:8443/"),
    *("https://api.localhost/", "https://10.1.2.3/", "https://[fd00::1]/", "https://db.internal/"),
]  # fmt: skip


@pytest.mark.parametrize("url", NEVER_A_URL)
def test_what_is_no_receiver_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        checked(url, allows_local=True)


@pytest.mark.parametrize("url", PUBLIC_ONLY)
def test_what_is_a_receiver_while_one_develops_is_none_in_production(url: str) -> None:
    assert checked(url, allows_local=True) == url
    with pytest.raises(UrlRefused):
        checked(url, allows_local=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://SHOP.example:8443/hooks?token=a%20b&c=d",
        "https://xn--shp-sna.example/",
        "https://8.8.8.8/hooks",
        "https://[2606:4700::1111]/",
        "https://hooks.shop_1.example./~a/b;c=1",
    ],
)
def test_what_is_a_receiver_is_taken_as_it_is(url: str) -> None:
    assert checked(url, allows_local=False) == url
