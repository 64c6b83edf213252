# One object library per instruction-set level, from the same sources, each in its own namespace.

include(CheckCXXCompilerFlag)

# tw_add_isa_level(<target> <level> <source>...): one of them, <target>_<level>.
function(tw_add_isa_level target level)
  set(march_v1 -march=x86-64)
  set(march_v3 -march=x86-64-v3)
  # Full-width vectors: GCC would split them in halves otherwise.
  set(march_v4 -march=x86-64-v4 -mprefer-vector-width=512)
  set(march_bf16 ${march_v4} -mavx512bf16)
  set(march_neon "")
  set(library ${target}_${level})
  add_library(${library} OBJECT ${ARGN})
  target_compile_definitions(${library} PRIVATE TW_ISA=${level})
  # Every function that returns a vector is inlined: its calling convention cannot matter.
  target_compile_options(${library} PRIVATE ${march_${level}} -Wno-psabi)
  # Link-time optimisation could move instructions of one level into another.
  set_target_properties(${library} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
  target_link_libraries(${library} PRIVATE tw_headers tw_warnings)
endfunction()

# tw_add_isa_levels(<target> <source>...) sets TW_ISA_TARGETS, lowest level first: baseline objects are
# linked first, so that no code of a higher level can stand in for theirs.
function(tw_add_isa_levels target)
  set(levels "")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(levels v1 v3 v4)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(levels neon)
  endif()
  set(targets "")
  foreach(level IN LISTS levels)
    tw_add_isa_level(${target} ${level} ${ARGN})
    list(APPEND targets ${target}_${level})
    string(TOUPPER ${level} upper)
    list(APPEND definitions TW_LEVEL_${upper})
  endforeach()
  set(TW_ISA_TARGETS ${targets} PARENT_SCOPE)
  set(TW_ISA_DEFINITIONS ${definitions} PARENT_SCOPE)
endfunction()

# tw_add_bf16_level(<target> <source>...): what differs from v4 where products of bfloat16 exist; appends to the
# lists of tw_add_isa_levels, if the compiler knows how.
function(tw_add_bf16_level target)
  if(NOT "TW_LEVEL_V4" IN_LIST TW_ISA_DEFINITIONS)
    return()
  endif()
  check_cxx_compiler_flag(-mavx512bf16 TW_COMPILES_BF16)
  if(TW_COMPILES_BF16)
    tw_add_isa_level(${target} bf16 ${ARGN})
    set(TW_ISA_TARGETS ${TW_ISA_TARGETS} ${target}_bf16 PARENT_SCOPE)
    set(TW_ISA_DEFINITIONS ${TW_ISA_DEFINITIONS} TW_LEVEL_BF16 PARENT_SCOPE)
  endif()
endfunction()
