// SPDX-License-Identifier: MIT
#include "lib/runtime.hpp"

#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"

#include <cstdarg>
#include <cstddef>

extern "C" {
extern std::uint64_t start_info_address;
extern std::uint64_t page_map_level4[512];
extern std::uint64_t page_directory_pointers[512];
}

namespace payload {
namespace {

constexpr std::uint16_t kDebugConsole = 0xe9;
constexpr std::uint16_t kCom1 = 0x3f8;
constexpr std::uint16_t kDebugExit = 0xf4;
constexpr std::uint64_t kPage = 4096;

bool has_debug_console;

void put(char c) {
    if (has_debug_console) {
        out8(kDebugConsole, static_cast<std::uint8_t>(c));
        return;
    }
    while ((in8(kCom1 + 5) & 0x20) == 0) {
    }
    out8(kCom1, static_cast<std::uint8_t>(c));
}

void put_number(std::uint64_t value, unsigned base, int width, char fill) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (width-- > count)
        put(fill);
    while (count > 0)
        put(digits[--count]);
}

std::uint64_t number(std::va_list& arguments, int longs) {
    return longs > 0 ? va_arg(arguments, std::uint64_t) : va_arg(arguments, std::uint32_t);
}

void put_signed(std::int64_t value, int width, char fill) {
    if (value < 0)
        put('-');
    put_number(value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value), 10,
               width, fill);
}

void put_formatted(const char* format, std::va_list& arguments) {
    for (const char* p = format; *p != 0; ++p) {
        if (*p != '%') {
            put(*p);
            continue;
        }
        const char fill = p[1] == '0' ? '0' : ' ';
        int width = 0;
        int longs = 0;
        for (++p; *p >= '0' && *p <= '9'; ++p)
            width = width * 10 + (*p - '0');
        for (; *p == 'l'; ++p)
            ++longs;
        switch (*p) {
        case 'd':
            put_signed(longs > 0 ? va_arg(arguments, std::int64_t) : va_arg(arguments, std::int32_t), width,
                       fill);
            break;
        case 'u': put_number(number(arguments, longs), 10, width, fill); break;
        case 'x': put_number(number(arguments, longs), 16, width, fill); break;
        case 'p': put_number(va_arg(arguments, std::uint64_t), 16, 16, '0'); break;
        case 'c': put(static_cast<char>(va_arg(arguments, int))); break;
        case 's':
            for (const char* s = va_arg(arguments, const char*); *s != 0; ++s)
                put(*s);
            break;
        default: put(*p);
        }
    }
}

}  // namespace

void print(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    put_formatted(format, arguments);
    va_end(arguments);
}

void vprint(const char* format, std::va_list& arguments) {
    put_formatted(format, arguments);
}

void fail(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    print("FAILED: ");
    put_formatted(format, arguments);
    print("\n");
    va_end(arguments);
    finish(1);
}

void finish(int code) {
    out32(kDebugExit, static_cast<std::uint32_t>(code));
    print("port 0x%x ends nothing\n", kDebugExit);
    for (;;)
        asm volatile("cli; hlt");
}

const StartInfo& start_info() {
    return *reinterpret_cast<const StartInfo*>(start_info_address);
}

std::uint64_t argument(std::string_view name, std::uint64_t otherwise) {
    if (start_info().command_line == 0)
        return otherwise;
    const std::string_view line{reinterpret_cast<const char*>(start_info().command_line)};
    for (std::size_t at = line.find(name); at != std::string_view::npos; at = line.find(name, at + 1)) {
        const std::size_t end = at + name.size();
        if ((at != 0 && line[at - 1] != ' ') || end >= line.size() || line[end] != '=')
            continue;
        std::uint64_t value = 0;
        for (std::size_t i = end + 1; i < line.size() && line[i] >= '0' && line[i] <= '9'; ++i)
            value = value * 10 + static_cast<std::uint64_t>(line[i] - '0');
        return value;
    }
    return otherwise;
}

void map_high(std::uint64_t address) {
    alignas(kPage) static std::uint64_t directory[512];
    static std::uint64_t mapped;
    constexpr unsigned kGibShift = 30;
    const std::uint64_t gib = address >> kGibShift;
    CHECK(gib >= 4 && gib < 512);
    for (std::uint64_t i = 0; i < 512; ++i)
        directory[i] = gib << kGibShift | i << 21 | 0x83;
    if (mapped != 0)
        page_directory_pointers[mapped] = 0;
    mapped = gib;
    page_directory_pointers[gib] = reinterpret_cast<std::uint64_t>(directory) | 3;
    write_cr3(reinterpret_cast<std::uint64_t>(page_map_level4));
}

extern "C" [[noreturn]] void runtime_start() {
    has_debug_console = in8(kDebugConsole) == kDebugConsole;
    // Whatever a firmware left of the PICs would come in over the exceptions' vectors.
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    load_idt();
    finish(payload_main());
}

}  // namespace payload

// What the compiler calls by itself.
extern "C" {
void* memset(void* to, int value, std::size_t size) {
    void* const start = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return start;
}
void* memcpy(void* to, const void* from, std::size_t size) {
    void* const start = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return start;
}
void* memmove(void* to, const void* from, std::size_t size) {
    auto* d = static_cast<char*>(to);
    const auto* s = static_cast<const char*>(from);
    if (d <= s)
        return memcpy(to, from, size);
    while (size-- > 0)
        asm volatile("movb %1, %%al; movb %%al, %0" : "=m"(d[size]) : "m"(s[size]) : "al");
    return to;
}
int memcmp(const void* a, const void* b, std::size_t size) {
    const auto* x = static_cast<const volatile unsigned char*>(a);
    const auto* y = static_cast<const volatile unsigned char*>(b);
    for (; size > 0; --size, ++x, ++y)
        if (*x != *y)
            return *x - *y;
    return 0;
}
void* memchr(const void* from, int value, std::size_t size) {
    const auto* p = static_cast<const volatile unsigned char*>(from);
    for (; size > 0; --size, ++p)
        if (*p == static_cast<unsigned char>(value))
            return const_cast<unsigned char*>(p);
    return nullptr;
}
std::size_t strlen(const char* text) {
    const volatile char* end = text;
    while (*end != 0)
        ++end;
    return static_cast<std::size_t>(end - text);
}
}
