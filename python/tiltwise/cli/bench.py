"""`tiltwise bench`: rates of the kernels on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.config import Options, option


class BenchOptions(Options):
    """Options of `tiltwise bench`."""

    command: ClassVar[str] = "bench"

    threads: int = option(0, flags=("--threads", "--j"), ge=0, help="threads; 0 means all cores")
    backend: str = option("auto", help="kernels to measure, see `tiltwise doctor`")


def run(options: BenchOptions, session: Session) -> Outcome:
    """Measure, and show each kernel as a share of the machine's peaks."""
    from tiltwise.kernels.rates import RADII, measure_kernels, measure_machine
    from tiltwise.kernels.select import default_threads, load_backend

    backend, oracle = load_backend(options.backend), load_backend("reference")
    threads = options.threads or default_threads()
    with session.progress.task("kernels", 1 + len(RADII)) as task:
        machine = measure_machine(threads)
        task.advance()
        rates = []
        for radius in RADII:
            rates += measure_kernels(backend, oracle, radius, threads)
            task.advance()
    lines = [
        f"backend {backend.name}, threads: {threads}",
        f"peaks: {machine.flops / 1e9:.0f} GFLOP/s (matrix product, single precision), "
        f"{machine.bytes_per_s / 1e9:.1f} GB/s (copy)",
        f"{'kernel':12} {'shells':>6} {'ms':>9} {'Msamples/s/core':>16} {'GFLOP/s':>9} {'of peak':>8} {'GB/s':>7} "
        f"{'of copy':>8} {'error':>8}",
    ]
    rows = []
    for rate in rates:
        flops, moved = rate.flops / rate.seconds, rate.bytes_moved / rate.seconds
        shares = {"share_of_flops": flops / machine.flops, "share_of_bandwidth": moved / machine.bytes_per_s}
        rows.append(asdict(rate) | shares)
        lines.append(
            f"{rate.kernel:12} {rate.radius:6.0f} {rate.seconds * 1e3:9.2f} "
            f"{rate.samples / rate.seconds / threads / 1e6:16.1f} {flops / 1e9:9.1f} {shares['share_of_flops']:8.0%} "
            f"{moved / 1e9:7.1f} {shares['share_of_bandwidth']:8.0%} {rate.error:8.1e}"
        )
    lines.append("GB/s counts every byte a kernel asks for: above 100 % of a copy, caches serve it.")
    return Outcome({"backend": backend.name, "machine": asdict(machine), "kernels": rows}, lines)


command = command_from_options(BenchOptions, run, "Rates of the kernels here, against the machine's measured peaks.")
