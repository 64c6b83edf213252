# Warnings for our own targets; errors where a preset asks for it (TW_WERROR).
add_library(tw_warnings INTERFACE)
target_compile_options(tw_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wshadow>
  $<$<AND:$<BOOL:${TW_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
