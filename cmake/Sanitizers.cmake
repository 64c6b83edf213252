# TW_SANITIZE: empty, "address,undefined" or "thread".  For all of the project, since one uninstrumented
# object hides errors.
if(TW_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TW_SANITIZE}>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer> $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>)
  add_link_options(-fsanitize=${TW_SANITIZE})
endif()
