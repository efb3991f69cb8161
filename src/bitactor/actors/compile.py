"""From a typed tree to a callable address: cached object code, freshly compiled code, or Python (BITACTOR_JIT=off)."""

import os
import threading
from dataclasses import dataclass
from typing import Any, Final

from bitactor.actors import cache, libm
from bitactor.actors import language as L
from bitactor.actors.types import TABLE_VERSION
from bitactor.schema import fingerprint

COMPILER_VERSION: Final = 1  # raise it when the same typed tree gives other code

_lock = threading.Lock()  # LLVM's global state, and the table below
_made: dict[str, "CompiledHandler"] = {}


@dataclass(frozen=True, slots=True)
class CompiledHandler:
    """A handler's address, valid while this object lives. from_cache: its code was read, not compiled."""

    address: int
    keepalive: Any
    from_cache: bool = False


def jit_is_off() -> bool:
    """Whether BITACTOR_JIT says that handlers run as Python."""
    said = os.environ.get("BITACTOR_JIT", "on").lower()
    if said not in ("on", "off"):
        raise ValueError(f"BITACTOR_JIT is {said!r}: give on or off")
    return said == "off"


def program_fingerprint(program: L.Program) -> str:
    """What the handler does, in full: its typed tree, the version of the type table, the math library if it uses it."""
    return fingerprint("handler", repr(program), str(TABLE_VERSION), libm.identity() if program.libm else "")


def compile_program(program: L.Program, jit: bool | None = None) -> CompiledHandler:
    """Machine code of the ABI for this machine; Python when jit is False (None: as BITACTOR_JIT says). Any thread."""
    if not (not jit_is_off() if jit is None else jit):
        import ctypes

        from bitactor.actors.interpret import interpret

        function = interpret(program)
        return CompiledHandler(ctypes.cast(function, ctypes.c_void_p).value or 0, function)
    with _lock:
        name = program_fingerprint(program)
        if name not in _made:
            _made[name] = _native(program, name)
        return _made[name]


def _native(program: L.Program, name: str) -> CompiledHandler:
    import llvmlite
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True, codemodel="jitdefault")
    for needed in (*program.libm, "fmod"):
        binding.add_symbol("bitactor_libm_" + needed, libm.address(needed))
    key = fingerprint(name, str(COMPILER_VERSION), llvmlite.__version__, target.triple, cpu, features) + ".o"
    code = cache.load(key)
    found = code is not None
    if code is None:
        code = _object(binding, program, machine)
        cache.save(key, code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    from bitactor.actors.abi import HANDLER

    return CompiledHandler(engine.get_function_address(HANDLER), (engine, machine), found)


def _object(binding: Any, program: L.Program, machine: Any) -> bytes:
    from bitactor.actors.llvm import build_ir

    module = binding.parse_assembly(build_ir(program))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))
