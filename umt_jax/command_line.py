"""Starts every command of this project and reports bad input."""

import ctypes
import logging as pylogging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from umt_jax import own_packages, storage

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_NEVER = 2**31 - 1  # A size that no allocation is compared with as too large.


# Not what is part of a path or of a flag.
_FIELD = re.compile(r"(?<![\w/.=-])([a-z_]+)=")

_HELP = ("--help", "-help", "-h", "-?")


def run(
    main: Callable[[], None],
    *,
    arguments: Callable[[Sequence[str]], list[str]] | None = None,
    takes_less: str = "Close other programs, or ask for less at once.",
) -> None:
    """Parses the flags and calls `main`; bad input ends it with one line and exit status 1.

    Bad input is what `main` raises as `ValueError` (values) or `OSError` (paths, full disks). A
    lack of memory ends it so, too. `--verbosity=1` shows the traceback as well. `--help` prints the
    docstring of main's module and every flag of the command.

    Args:
        main: The command.
        arguments: Rewrites the command line before it is parsed; its errors are bad input, too.
        takes_less: Says what to do where there is not enough memory.
    """
    keep_freed_memory()

    def parse(argv: list[str]) -> list[str]:
        words = argv[: argv.index("--")] if "--" in argv else argv
        if any(word in _HELP for word in words):
            say(*_help(main).split("\n"))
            sys.exit()
        try:
            rewritten = arguments(argv) if arguments else argv
        except (ValueError, OSError, flags.Error) as error:
            sys.exit(_error_line(error))
        return app.parse_flags_with_usage(rewritten)

    def checked_main(argv: Sequence[str]) -> None:
        logging.get_absl_handler().addFilter(_escape_names)
        if logging.get_verbosity() <= logging.INFO:  # --verbosity=1 shows all.
            logging.get_absl_handler().addFilter(_is_worth_a_line)
            sys.unraisablehook = _report_unraisable
        # Asked to end by whatever started it, as by Ctrl-C: files under way are removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if len(argv) > 1:
                raise ValueError(
                    f"Unexpected argument: {argv[1]}. Flags are written --name=value; "
                    "--help lists them."
                )
            main()
        except KeyboardInterrupt:
            sys.exit("Interrupted.")
        except (ValueError, OSError) as error:
            logging.debug("Traceback:", exc_info=True)
            sys.exit(_error_line(error))
        except (MemoryError, RuntimeError) as error:
            # JAX raises RuntimeError, of the system's status.
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            logging.debug("Traceback:", exc_info=True)
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            lack = f"There is not enough memory{f' ({reason})' if reason else ''}. {takes_less}"
            sys.exit(_error_line(ValueError(lack)))

    app.run(checked_main, flags_parser=parse)


def _help(main: Callable[[], None]) -> str:
    """Returns what a command does, and every flag of it with its default."""
    document = (sys.modules[main.__module__].__doc__ or "").strip()
    # Those of libraries are absl's for logging; absl names the main module by its path.
    own = {
        id(flag): flag
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.partition(".")[0] in own_packages.NAMES
        for flag in defined
    }
    lines = [document, "", "Flags:"]
    for flag in sorted(own.values(), key=lambda flag: flag.name):
        if flags.FLAGS[flag.name] is not flag:
            continue  # Another name for it.
        is_required = any("other than None" in check.message for check in flag.validators)
        default = "required" if is_required else f"default: {flag.default_as_str or 'none'}"
        choices = flag.parser.syntactic_help
        notes = f"{default}; {choices}" if choices else default
        name = f"[no]{flag.name}" if flag.boolean else flag.name
        text = f"--{name}: {flag.help}"
        lines.append(flags.text_wrap(text, indent="    ", firstline_indent="  "))
        lines.append(flags.text_wrap(f"({notes})", indent="    "))
    lines += ["", "--flagfile=FILE reads flags from a file. --helpfull adds those of libraries."]
    return "\n".join(lines)


def _error_line(error: Exception) -> str:
    return f"error: {printable(' '.join(message(error).split()))}"


def message(error: Exception) -> str:
    """Returns what an error says, fields as flags; the system's own ones without their number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    return _FIELD.sub(_as_flag, str(error))


def _as_flag(field: re.Match[str]) -> str:
    """Returns `field=`, as errors of the library name what was given, as a flag of this command."""
    return f"--{field[0]}" if field[1] in flags.FLAGS else field[0]


def printable(text: str) -> str:
    r"""Returns text as terminals and pages can show it, whatever names of files are in it.

    Control characters and bytes that are no UTF-8 become escapes, such as \x1b.
    """
    return "".join(
        character if character.isprintable() else _escape(character) for character in text
    )


def _escape(character: str) -> str:
    # Python's stand-ins for the bytes of names that are no UTF-8.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def say(*lines: str, error: bool = False) -> None:
    """Prints lines at once, their control characters escaped: names of files may be in them.

    Args:
        lines: What to print; no newlines of their own.
        error: Prints to standard error.
    """
    for line in lines:
        print(printable(line), file=sys.stderr if error else sys.stdout, flush=True)


def say_over(line: str) -> None:
    """Writes a line over the one before it, on standard error, which is a terminal.

    Args:
        line: As for `say`, which ends it when it is given an empty line.
    """
    sys.stderr.write(f"\r{printable(line)}\x1b[K")
    sys.stderr.flush()


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next allocation; to be called before threads start.

    A compiled program allocates its temporaries anew at every call. By default large ones come from
    the system page by page, each cleared, which took an eighth to a fifth of a training step on a
    CPU. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        # Threads would get arenas of their own, which cannot hold large blocks.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def use_compilation_cache() -> None:
    """Keeps compiled programs for the next start: JAX_COMPILATION_CACHE_DIR, or the cache folder.

    Where that cannot be written, they are compiled at every start. JAX is not imported for it,
    which takes a second that not every command needs.
    """
    own = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder: Path | None = Path(own) if own else storage.cache_folder() / "xla"
    assert folder is not None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logging.debug("Compiled programs are not kept: %s", error)
        folder = None
    # Small programs too: there are dozens, and together they take seconds.
    settings = {
        "jax_compilation_cache_dir": None if folder is None else str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if "jax" in sys.modules:
        for name, value in settings.items():
            sys.modules["jax"].config.update(name, value)
        return
    for name, value in settings.items():  # JAX reads them when it is imported.
        if value is None:
            os.environ.pop(name.upper(), None)
        else:
            os.environ[name.upper()] = str(value)


def _is_worth_a_line(record: pylogging.LogRecord) -> bool:
    """Keeps this project's own lines, and of others their warnings.

    Orbax tells of each file it touches. Its errors, which it raises as well, it tells with a
    traceback from each thread that they cross, and so does asyncio of the tasks they leave behind.
    """
    if _is_own(record):
        return True
    parts = Path(record.pathname).parts
    told_twice = record.exc_info and not {"orbax", "asyncio"}.isdisjoint(parts)
    return record.levelno >= pylogging.WARNING and not told_twice


def _is_own(record: pylogging.LogRecord) -> bool:
    """Whether a line of the log is this project's own."""
    path = Path(record.pathname)
    # Not any folder of that name: a checkout may be called umt_jax, with a .venv in it.
    return path.is_relative_to(own_packages.ROOT) and (
        path.relative_to(own_packages.ROOT).parts[0] in own_packages.NAMES
    )


def _escape_names(record: pylogging.LogRecord) -> bool:
    """Escapes control characters in what is logged, which is one line where it is this project's.

    Of others, whose lines may be several, newlines stay.
    """
    text = record.getMessage()
    lines = [text] if _is_own(record) else text.split("\n")
    record.msg, record.args = "\n".join(map(printable, lines)), ()
    return True


def _report_unraisable(unraisable: Any) -> None:
    """Reports errors that nobody can catch, but for what TensorStore says after one of Orbax's."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
