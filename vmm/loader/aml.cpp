// SPDX-License-Identifier: MIT
#include "vmm/loader/aml.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>

namespace hv::loader {
namespace {

constexpr unsigned hex_digit(char c) {
    return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'A' + 10);
}

/// Address space descriptors' flags: minimum and maximum fixed, positive decode, produced for the children
/// [acpi 6.4.3.5.5 Resource Type Specific Flags].
constexpr std::uint8_t kFixedWindow = 0x0c;
constexpr std::uint8_t kMemoryRange = 0, kIoRange = 1, kBusRange = 2;
constexpr std::uint8_t kReadWrite = 1;    // memory, not cacheable
constexpr std::uint8_t kEntireRange = 3;  // I/O: ISA and other ports

}  // namespace

void AmlWriter::byte(std::uint64_t value) {
    if (!bytes_.push(static_cast<std::byte>(value)))
        failed_ = true;
}

void AmlWriter::little_endian(std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i)
        byte(value >> (8 * i));
}

// [acpi 20.2.2 Name Objects Encoding]: four characters, filled up with '_'.
void AmlWriter::name_string(std::string_view path) {
    if (path.starts_with('\\')) {
        byte('\\');
        path.remove_prefix(1);
    }
    HV_ASSERT(path.size() <= 4);
    for (std::size_t i = 0; i < 4; ++i)
        byte(static_cast<std::uint8_t>(i < path.size() ? path[i] : '_'));
}

void AmlWriter::start_name(std::string_view name) {
    byte(kName);
    name_string(name);
}

// [acpi 20.2.4 Package Length Encoding]: the length counts itself. One byte holds 6 bits; else the first
// holds 4 bits and how many follow.
void AmlWriter::insert_length(std::size_t start) {
    const std::size_t body = bytes_.size() - start;
    std::size_t extra = 0;
    if (body + 1 > 0x3f)
        for (extra = 1; (body + 1 + extra) >> (4 + 8 * extra) != 0; ++extra) {
        }
    HV_ASSERT(extra <= 3);
    const std::size_t length = body + 1 + extra;
    const std::size_t end = bytes_.size();
    byte(extra == 0 ? length : extra << 6 | (length & 0x0f));
    little_endian(length >> 4, static_cast<unsigned>(extra));
    if (!failed_)
        std::rotate(bytes_.begin() + start, bytes_.begin() + end, bytes_.end());
}

// [acpi 20.2.3 Data Objects Encoding]
void AmlWriter::integer(std::uint64_t value) {
    struct Form {
        std::uint8_t prefix;
        unsigned bytes;
    };
    if (value <= 1) {
        byte(value);  // ZeroOp, OneOp
        return;
    }
    const Form form = value <= 0xff          ? Form{0x0a, 1}
                      : value <= 0xffff      ? Form{0x0b, 2}
                      : value <= 0xffff'ffff ? Form{0x0c, 4}
                                             : Form{0x0e, 8};
    byte(form.prefix);
    little_endian(value, form.bytes);
}

void AmlWriter::name(std::string_view name, std::uint64_t value) {
    start_name(name);
    integer(value);
}

// [acpi 20.2.5 Term Objects Encoding]
void AmlWriter::store_argument(std::string_view object) {
    byte(kStore);
    byte(kArg0);
    name_string(object);
}

void AmlWriter::return_object(std::string_view object) {
    byte(kReturn);
    name_string(object);
}

// [acpi 19.3.4 ASL Macros, EISAID]: five bits a letter, four bits a digit, big-endian.
void AmlWriter::name_eisa_id(std::string_view name, std::string_view id) {
    HV_ASSERT(id.size() == 7);
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < 3; ++i)
        code = code << 5 | (static_cast<unsigned>(id[i]) & 0x1f);
    for (std::size_t i = 3; i < 7; ++i)
        code = code << 4 | hex_digit(id[i]);
    start_name(name);
    byte(0x0c);
    little_endian(__builtin_bswap32(code), 4);
}

// The buffer's size as a word, filled in at its end.
std::size_t AmlWriter::start_buffer() {
    byte(0x0b);
    const std::size_t at = bytes_.size();
    little_endian(0, 2);
    return at;
}

void AmlWriter::end_resources(std::size_t size_at) {
    little_endian(0x0079, 2);  // end tag; a checksum of 0 counts as right
    if (!failed_)
        store(bytes_.begin() + size_at, static_cast<std::uint16_t>(bytes_.size() - size_at - 2));
}

void AmlWriter::io_ports(std::uint16_t first, std::uint8_t count) {
    byte(0x47);
    byte(1);  // decodes 16 bits
    little_endian(first, 2);
    little_endian(first, 2);
    byte(1);
    byte(count);
}

void AmlWriter::irq(std::uint8_t number) {
    byte(0x22);
    little_endian(std::uint64_t{1} << number, 2);
}

void AmlWriter::memory(std::uint32_t start, std::uint32_t size) {
    byte(0x86);
    little_endian(9, 2);
    byte(kReadWrite);
    little_endian(start, 4);
    little_endian(size, 4);
}

void AmlWriter::bus_window(std::uint16_t first, std::uint16_t last) {
    byte(0x88);
    little_endian(13, 2);
    byte(kBusRange);
    byte(kFixedWindow);
    byte(0);
    for (const unsigned word : {0U, unsigned{first}, unsigned{last}, 0U, unsigned{last} - first + 1})
        little_endian(word, 2);  // granularity, minimum, maximum, translation, length
}

void AmlWriter::io_window(std::uint16_t first, std::uint16_t last) {
    byte(0x88);
    little_endian(13, 2);
    byte(kIoRange);
    byte(kFixedWindow);
    byte(kEntireRange);
    for (const unsigned word : {0U, unsigned{first}, unsigned{last}, 0U, unsigned{last} - first + 1})
        little_endian(word, 2);
}

void AmlWriter::memory_window(std::uint32_t first, std::uint32_t last) {
    byte(0x87);
    little_endian(23, 2);
    byte(kMemoryRange);
    byte(kFixedWindow);
    byte(kReadWrite);
    for (const std::uint32_t dword : {0U, first, last, 0U, last - first + 1})
        little_endian(dword, 4);
}

Expected<Vec<std::byte>> AmlWriter::take() && {
    if (failed_)
        return Unexpected{Error::no_memory};
    return std::move(bytes_);
}

}  // namespace hv::loader
