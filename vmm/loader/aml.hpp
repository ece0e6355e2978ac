// SPDX-License-Identifier: MIT
// Writes ACPI Machine Language: named objects, integers, packages, resource templates, and the little of
// methods that a fixed board needs [acpi 20 ACPI Machine Language (AML) Specification]. Blocks are lambdas,
// so that nesting in the source is nesting in the table. Running out of memory is remembered and reported by
// take().
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv::loader {

class AmlWriter {
public:
    /// Scope(path) { body() }; a path is a name of up to four characters, also with '\' before it.
    template <class Body>
    void scope(std::string_view path, Body&& body) {
        block(kScope, [&] {
            name_string(path);
            body();
        });
    }
    /// Device(name) { body() }
    template <class Body>
    void device(std::string_view name, Body&& body) {
        byte(kExtended);
        block(kDevice, [&] {
            name_string(name);
            body();
        });
    }
    /// Name(name, integer)
    void name(std::string_view name, std::uint64_t value);
    /// Name(name, EISAID("PNP0A08")): `id` is three capital letters and four hexadecimal digits.
    void name_eisa_id(std::string_view name, std::string_view id);
    /// Name(name, Package() { elements() }): `elements` writes `count` of them, 255 at most.
    template <class Elements>
    void name_package(std::string_view name, std::uint8_t count, Elements&& elements) {
        start_name(name);
        package(count, elements);
    }
    /// A package as an element of another.
    template <class Elements>
    void package(std::uint8_t count, Elements&& elements) {
        block(kPackage, [&] {
            byte(count);
            elements();
        });
    }
    /// An integer as an element of a package, in the shortest form.
    void integer(std::uint64_t value);

    /// Method(name, arguments) { body() }
    template <class Body>
    void method(std::string_view name, std::uint8_t arguments, Body&& body) {
        block(kMethod, [&] {
            name_string(name);
            byte(arguments);
            body();
        });
    }
    // Statements inside method().
    /// If (object) { body() }
    template <class Body>
    void if_set(std::string_view object, Body&& body) {
        block(kIf, [&] {
            name_string(object);
            body();
        });
    }
    /// object = Arg0
    void store_argument(std::string_view object);
    /// Return (object)
    void return_object(std::string_view object);

    /// Name(_CRS, ResourceTemplate() { resources() })
    template <class Resources>
    void current_resources(Resources&& resources) {
        start_name("_CRS");
        block(kBuffer, [&] {
            const std::size_t size_at = start_buffer();
            resources();
            end_resources(size_at);
        });
    }
    // [acpi 6.4.2 Small Resource Data Type], [acpi 6.4.3 Large Resource Data Type], inside
    // current_resources().
    void io_ports(std::uint16_t first, std::uint8_t count);
    void irq(std::uint8_t number);  ///< edge triggered, active high, not shared
    void memory(std::uint32_t start, std::uint32_t size);
    void bus_window(std::uint16_t first, std::uint16_t last);
    void io_window(std::uint16_t first, std::uint16_t last);
    void memory_window(std::uint32_t first, std::uint32_t last);

    /// What has been written. Error::no_memory.
    Expected<Vec<std::byte>> take() &&;

private:
    // [acpi 20.3 AML Byte Stream Byte Values]
    static constexpr std::uint8_t kName = 0x08;
    static constexpr std::uint8_t kScope = 0x10;
    static constexpr std::uint8_t kBuffer = 0x11;
    static constexpr std::uint8_t kPackage = 0x12;
    static constexpr std::uint8_t kMethod = 0x14;
    static constexpr std::uint8_t kExtended = 0x5b;
    static constexpr std::uint8_t kArg0 = 0x68;
    static constexpr std::uint8_t kStore = 0x70;
    static constexpr std::uint8_t kDevice = 0x82;
    static constexpr std::uint8_t kIf = 0xa0;
    static constexpr std::uint8_t kReturn = 0xa4;

    template <class Body>
    void block(std::uint8_t opcode, Body&& body) {
        byte(opcode);
        const std::size_t start = bytes_.size();
        body();
        insert_length(start);
    }
    void byte(std::uint64_t value);
    void little_endian(std::uint64_t value, unsigned bytes);
    void name_string(std::string_view path);
    void start_name(std::string_view name);
    /// Puts PkgLength before what has been written since `start`.
    void insert_length(std::size_t start);
    std::size_t start_buffer();
    void end_resources(std::size_t size_at);

    Vec<std::byte> bytes_;
    bool failed_{false};
};

}  // namespace hv::loader
