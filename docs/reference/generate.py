"""Writes the tables of this folder from the code: `python docs/reference/generate.py`.

A test compares the files with what this would write, so they cannot fall behind.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from django.conf import settings  # noqa: E402

import dbresilience  # noqa: E402
from dbresilience import errors, instruments, meanings, signals  # noqa: E402
from dbresilience.checks import CHECKS  # noqa: E402
from dbresilience.conf import Option  # noqa: E402
from dbresilience.health import DatabaseHealth  # noqa: E402
from dbresilience.management.commands.dbresilience import Command  # noqa: E402
from dbresilience.options import OPTIONS  # noqa: E402
from dbresilience.resources import DatabaseResources  # noqa: E402
from dbresilience.retry import Attempt  # noqa: E402
from dbresilience.snapshot import PoolSnapshot  # noqa: E402

DJANGOS_ARGUMENTS = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color",
                     "--force-color", "--skip-checks"}  # fmt: skip
HANDED_OUT: tuple[Any, ...] = (Attempt, meanings.Classification, DatabaseResources, PoolSnapshot, DatabaseHealth)
"""What the functions of the interface return, whose attributes and methods are part of it."""
RESOURCES = ("snapshot", "health", "connect", "pause", "resume", "recycle", "close")
HEADS = {"Args": "argument", "Attributes": "attribute", "Raises": "raises"}
MADE_BY = "<!-- Written by docs/reference/generate.py; edit the code, then run it. -->\n"


def settings_page() -> str:
    """Every option, by group."""
    lines = [
        "# Settings",
        MADE_BY,
        'Set in `DATABASES[alias]["OPTIONS"]`. An unknown or impossible value stops the start and names the option.',
        "",
        '`OPTIONS["pool"]` is `True` (the default), `False` for no pool, or a dict of these:',
        "",
        *_table([option for option in OPTIONS if option.group == "pool"]),
        "",
        '`OPTIONS["resilience"]` is a dict of these:',
        "",
        *_table([option for option in OPTIONS if option.group == "resilience"]),
        "",
        "A name in the column *in a URL* may stand in `DATABASE_URL` as read by django-environ, e.g. "
        "`postgresql://user:password@host/name?pool_max_size=20&pool_timeout=5`, or flat in `OPTIONS`.",
        "",
        "`CONN_MAX_AGE` says how long Django keeps a connection that has no pool. With a pool, any value but 0 "
        "is system check `dbresilience.E001`; use `max_lifetime`.",
        "",
        "`DBRESILIENCE_METRICS_ACCESS`, a setting of its own beside `DATABASES`, says "
        "[who may read `/metrics`](../howto/watch-with-prometheus.md): `closed` (the default), `open`, or `token` "
        "for who sends the value of `DBRESILIENCE_METRICS_TOKEN`.",
    ]
    return "\n".join(lines) + "\n"


def _table(options: list[Option]) -> list[str]:
    rows = ["| option | default | unit | meaning | in a URL |", "|---|---|---|---|---|"]
    for option in options:
        default = "by DEBUG" if option.default == "auto" else f"`{option.default!r}`"
        urls = ", ".join(f"`{name}`" for name in option.in_url)
        rows.append(f"| `{option.name}` | {default} | {option.unit} | {option.meaning} | {urls} |")
    return rows


def signals_page() -> str:
    """Every signal with what it carries."""
    source = inspect.getsource(signals)
    lines = [
        "# Signals",
        MADE_BY,
        "In `dbresilience.signals`. Sent with `send_robust`, so a receiver that raises costs no query; the sender "
        "is the alias. Logging is their first receiver.",
        "",
        "| signal | when, and what it carries |",
        "|---|---|",
    ]
    for name, text in re.findall(r'^(\w+) = Signal\(\)\n"""(.*?)"""', source, re.S | re.M):
        lines.append(f"| `{name}` | {' '.join(text.split())} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Exceptions, and what each SQLSTATE is taken to mean."""
    lines = [
        "# Errors",
        MADE_BY,
        "`classify(exc)` says what a database error means. A class with a status is answered with it, by pages for "
        "people and problem JSON for programs; all others are left alone.",
        "",
        "| exception | when |",
        "|---|---|",
    ]
    lines += [
        f"| `{kind.__name__}` | {' '.join((kind.__doc__ or '').partition('Attributes:')[0].split())} |"
        for kind in (
            errors.DatabaseUnavailable,
            errors.AcquireTimeout,
            errors.TooManyWaiting,
            errors.OutOfTime,
            errors.CommitOutcomeUnknown,
            errors.PinnedConnectionLost,
            errors.RetryInsideTransaction,
        )
    ]
    lines += [
        "",
        "The first five are `django.db.OperationalError`s, `PinnedConnectionLost` is a `django.db.InterfaceError`, and "
        "`RetryInsideTransaction` a `TransactionManagementError`.",
        "",
        "What a server says while refusing a connection (`53300`, `57P03`, `28P01`, `3D000`) has no SQLSTATE in "
        "psycopg; dbresilience has libpq tell it. Where it cannot be certain which libpq psycopg uses, all of it is "
        "class `cannot_connect`. A reason that is none of these classes (`3D000`: no such database) is `unavailable` "
        "to whoever could not connect for it.",
        "",
        "A session lost before COMMIT was answered is looked up. What happened is no error; what did not is class "
        "`not_committed`, whatever the SQLSTATE; where nobody can say it is `outcome_unknown`: the answer says that "
        "the change may or may not have been stored.",
        "",
        "*May run again*: `not sent` only if the server never saw it, `read` also a read outside a transaction, "
        "`transaction` a whole unit marked by `retry`, which runs again for the first two as well, since what was not "
        "committed is undone.",
        "",
        "| SQLSTATE | name | class | HTTP status | connection | may run again |",
        "|---|---|---|---|---|---|",
    ]
    source = inspect.getsource(meanings)
    names = dict(re.findall(r'^    "(\w{5})": \w+,  # (\w+)', source, re.M))
    for sqlstate, meaning in meanings.BY_SQLSTATE.items():
        lines.append(f"| `{sqlstate}` | {names[sqlstate]} | {_row_of(meaning)} |")
    lines += [
        "",
        "These are recognised otherwise: by where an error came from, or by the text of a pooler. "
        "[What each class means](../howto/when-the-pager-rings.md#classes-of-errors), and what to do.",
        "",
        "| class | HTTP status | connection | may run again |",
        "|---|---|---|---|",
    ]
    others = {each.name: each for each in vars(meanings).values() if isinstance(each, meanings.Classification)}
    for meaning in meanings.BY_SQLSTATE.values():
        others.pop(meaning.name, None)
    lines += [f"| {_row_of(meaning)} |" for meaning in others.values()]
    return "\n".join(lines) + "\n"


def _row_of(meaning: meanings.Classification) -> str:
    fate = "condemned with its siblings" if meaning.condemn else "closed" if meaning.evict else "kept"
    return f"{meaning.name} | {meaning.status or 'unchanged'} | {fate} | {meaning.retry.replace('_', ' ')}"


def python_page() -> str:
    """Every function that a program may import, and what it is handed by them."""
    functions = [vars(dbresilience)[name] for name in dbresilience.__all__]
    lines = [
        "# Python interface",
        MADE_BY,
        "What `dbresilience` exports beside [exceptions](errors.md) and [signals](signals.md). The rest may change.",
    ]
    for function in functions:
        if not inspect.isclass(function):
            lines += ["", f"## {function.__name__}", "", f"`{_call(function)}`", *_described(function)]
    lines += ["", "What these hand out:"]
    for kind in HANDED_OUT:
        lines += ["", f"## {kind.__name__}", *_described(kind)]
        for name in RESOURCES if kind is DatabaseResources else ():
            lines += ["", f"### {name}", "", f"`{_call(getattr(kind, name))}`", *_described(getattr(kind, name))]
    return "\n".join(lines) + "\n"


def _call(function: Callable[..., Any]) -> str:
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return f"{function.__name__}{inspect.Signature(bare)}"


def _described(thing: Any) -> list[str]:
    """The docstring, with its sections as tables."""
    text, *sections = re.split(r"^(\w+):\n((?:    .*\n|\n)+)", inspect.getdoc(thing) + "\n", flags=re.M)
    lines = [""] + [" ".join(paragraph.split()) + "\n" for paragraph in text.strip().split("\n\n")]
    lines[-1] = lines[-1].rstrip()
    for title, body in zip(sections[::3], sections[1::3], strict=True):
        if title not in HEADS:
            lines += ["", f"{title}: {' '.join(body.split())}"]
            continue
        lines += ["", f"| {HEADS[title]} | meaning |", "|---|---|"]
        for name, meaning in re.findall(r"^    ([\w.]+): (.*\n(?:     .*\n)*)", body, re.M):
            lines.append(f"| `{name}` | {' '.join(meaning.split())} |")
    return [line.replace("``", "`") for line in lines]


def checks_page() -> str:
    """System checks with their fix."""
    from dbresilience.contrib.toolbar import ConnectionsPanel

    lines = [
        "# System checks",
        MADE_BY,
        "`manage.py check` and most other commands run them; servers do not. Each message has its fix. An `E` stops "
        "the command, a `W` does not, and `SILENCED_SYSTEM_CHECKS` in the settings turns off what you have decided "
        "otherwise. Databases are asked by the last one only. [The doctor](../howto/size-the-pool.md) says all of this "
        "of one alias, and what the server adds.",
        "",
        "| id | what it finds |",
        "|---|---|",
    ]
    of_panel, _, says = " ".join((ConnectionsPanel.run_checks.__doc__ or "").split()).partition(": ")
    found = {check.id: " ".join((check.__doc__ or "").split()) for check in CHECKS} | {of_panel: says}
    lines += [f"| `{identity}` | {found[identity]} |" for identity in sorted(found)]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Every instrument under both of its names."""
    lines = [
        "# Metrics",
        MADE_BY,
        "For Prometheus at `/metrics`, and as OpenTelemetry instruments; [how to read them]"
        "(../howto/watch-with-prometheus.md). Those that begin with `db` have the names, units and attributes of "
        "OpenTelemetry's conventions for database clients. Times are in seconds.",
        "",
        "| Prometheus | OpenTelemetry | kind | unit | labels | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for each in instruments.INSTRUMENTS:
        kind = "gauge" if each.kind == instruments.MOMENT else each.kind
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(
            f"| `{each.prometheus_name}` | `{each.name}` | {kind} | `{each.unit}` | {labels} | {each.meaning} |"
        )
    lines += [
        "",
        f"Histograms have the upper bounds {', '.join(f'{bound:g}' for bound in instruments.BUCKETS)}. Counters whose "
        "labels have few and known values begin at 0 with the pool.",
        "",
        "| label | in OpenTelemetry | says |",
        "|---|---|---|",
        *(f"| `{label}` | `{attribute}` | {says} |" for label, (attribute, says) in instruments.LABELS.items()),
        "",
        f"In OpenTelemetry `{instruments.DURATION.name}` has `{'` = `'.join(instruments.SYSTEM)}`, too.",
        "",
        "Why a lease ended, the label `reason` of `dbresilience_leases_total`:",
        "",
        "| reason | what ended it |",
        "|---|---|",
        *(f"| `{reason}` | {text} |" for reason, text in instruments.LEASE_ENDS.items()),
    ]
    return "\n".join(lines) + "\n"


def command_page() -> str:
    """`manage.py dbresilience`, from its own parser."""
    parser = Command().create_parser("manage.py", "dbresilience")
    (orders,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    meanings = {choice.dest: choice.help for choice in orders._choices_actions}
    lines = [
        "# manage.py dbresilience",
        MADE_BY,
        f"{Command.help} When to use it: [doctor](../howto/size-the-pool.md), "
        "[the others](../howto/restart-postgresql.md).",
        "",
    ]
    for name, order in orders.choices.items():
        lines += [
            f"## {name}",
            "",
            f"{meanings[name][0].upper()}{meanings[name][1:]}. {order.description or ''}".strip(),
            "",
        ]
        lines += ["| argument | meaning |", "|---|---|"]
        for action in order._actions:
            if action.option_strings and action.option_strings[-1] not in DJANGOS_ARGUMENTS:
                value = "" if action.nargs == 0 else f" {action.dest.rpartition('_')[2].upper()}"
                lines.append(f"| `{action.option_strings[-1]}{value}` | {action.help} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


PAGES = {
    "python.md": python_page,
    "settings.md": settings_page,
    "signals.md": signals_page,
    "errors.md": errors_page,
    "checks.md": checks_page,
    "command.md": command_page,
    "metrics.md": metrics_page,
}

if __name__ == "__main__":
    settings.configure()  # the command asks for the aliases
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
