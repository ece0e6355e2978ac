# SPDX-License-Identifier: MIT
# A layer is a library whose include path is a folder of links ("view") to just those parts of the tree that it may
# include. Headers are named by their path from the root, and a forbidden one is not found.

# For code where small counts more than fast. GCC would copy and clear memory byte by byte there: what has no fixed size goes
# through memcpy and memset, for it may be a guest's whole RAM.
set(HV_COLD_OPTIONS -Os $<$<CXX_COMPILER_ID:GNU>:-mstringop-strategy=libcall>)

# hv_layer(TARGET [COLD] FOLDERS folder... [SEES path...] [NEEDS target...]): the sources in the folders; `path` is a folder or
# a single header; NEEDS are the libraries whose code it calls. COLD: none of it runs while guests do, HV_COLD_OPTIONS
# are for it.
function(hv_layer target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "KERNEL_ONLY;COLD" "" "FOLDERS;SEES;NEEDS")
    if(arg_KERNEL_ONLY AND NOT HV_KERNEL)
        return()
    endif()
    set(view ${CMAKE_BINARY_DIR}/views/${target})
    foreach(path IN LISTS arg_FOLDERS arg_SEES)
        get_filename_component(parent ${view}/${path} DIRECTORY)
        file(MAKE_DIRECTORY ${parent})
        file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${path} ${view}/${path} SYMBOLIC)
    endforeach()
    set(sources)
    foreach(folder IN LISTS arg_FOLDERS)
        file(GLOB found CONFIGURE_DEPENDS ${folder}/*.cpp)
        list(APPEND sources ${found})
        if(HV_KERNEL)
            file(GLOB found CONFIGURE_DEPENDS ${folder}/*.S)
            list(APPEND sources ${found})
        endif()
    endforeach()
    if(sources)
        add_library(${target} STATIC ${sources})
        target_include_directories(${target} PRIVATE ${view})
        hv_compile_options(${target})
        if(HV_KERNEL AND arg_COLD)
            target_compile_options(${target} PRIVATE ${HV_COLD_OPTIONS})
        endif()
        target_link_libraries(${target} PUBLIC ${arg_NEEDS})
    else()  # headers alone
        add_library(${target} INTERFACE)
        target_link_libraries(${target} INTERFACE ${arg_NEEDS})
    endif()
    if(HV_KERNEL)
        hv_check_headers(${target} ${view} ${arg_FOLDERS})
    endif()
endfunction()

# Each header compiles alone, within its layer's view. Where the source of its name includes it first, that has shown it.
function(hv_check_headers target view)
    set(units)
    foreach(folder IN LISTS ARGN)
        file(GLOB headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${folder}/*.hpp)
        foreach(header IN LISTS headers)
            string(REGEX REPLACE "\\.hpp$" ".cpp" source ${CMAKE_SOURCE_DIR}/${header})
            set(first)
            if(EXISTS ${source})
                file(STRINGS ${source} first REGEX "^#include" LIMIT_COUNT 1)
            endif()
            if(first STREQUAL "#include \"${header}\"")
                continue()
            endif()
            set(unit ${CMAKE_BINARY_DIR}/headers/${target}/${header}.cpp)
            file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${header}\"\n")
            list(APPEND units ${unit})
        endforeach()
    endforeach()
    if(units)
        add_library(${target}_headers OBJECT EXCLUDE_FROM_ALL ${units})
        target_include_directories(${target}_headers PRIVATE ${view})
        hv_compile_options(${target}_headers)
        target_compile_options(${target}_headers PRIVATE -O0 -g0)  # all that counts is that they compile
        set_property(GLOBAL APPEND PROPERTY HV_HEADER_CHECKS ${target}_headers)
    endif()
endfunction()

function(hv_compile_options target)
    target_compile_features(${target} PRIVATE cxx_std_20)
    # What is compiled does not say where the tree lies, nor where ccache first met it.
    target_compile_options(${target} PRIVATE -fdebug-prefix-map=${CMAKE_SOURCE_DIR}/= -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/= -fmacro-prefix-map=../../=)
    target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow;-Wold-style-cast;-Wnon-virtual-dtor;-Werror>
        $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-stringop-overflow;-Wno-array-bounds>)
    if(HV_KERNEL)
        target_compile_options(${target} PRIVATE ${HV_MACHINE_FLAGS}
            $<$<COMPILE_LANGUAGE:CXX>:${HV_MACHINE_CXX_FLAGS}>
            $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-mgeneral-regs-only>
            $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-mno-sse;-mno-mmx>)
    endif()
    if(HV_SANITIZE)
        target_compile_options(${target} PRIVATE -fsanitize=${HV_SANITIZE} -fno-sanitize-recover=all)
        target_link_options(${target} PRIVATE -fsanitize=${HV_SANITIZE})
    endif()
    if(HV_DEBUG)
        target_compile_definitions(${target} PRIVATE HV_DEBUG)
    endif()
endfunction()
