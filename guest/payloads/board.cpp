// SPDX-License-Identifier: MIT
// Every device of the board, as a guest sees it: registers, and interrupts on their way to the processor. Its
// verdict on each comes on a line of its own. Needs the test device's interrupt lines. The local APIC has a
// payload of its own.
#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <cstdint>

using namespace payload;

namespace {

constexpr std::uint64_t kIoApic = 0xfec0'0000, kHpet = 0xfed0'0000;
constexpr std::uint16_t kLines = 0x2000;
constexpr std::uint8_t kVector = 0x60;
constexpr unsigned kTestLine = 14;

volatile unsigned count;
volatile unsigned lower_at;  ///< interrupt that takes the test line away, 0: none
volatile bool rtc_interrupt, legacy;

std::uint8_t cmos(std::uint8_t index) {
    out8(0x70, index);
    return in8(0x71);
}
void set_cmos(std::uint8_t index, std::uint8_t value) {
    out8(0x70, index);
    out8(0x71, value);
}
void line(unsigned number, bool asserted) {
    out8(static_cast<std::uint16_t>(kLines + number), asserted ? 1 : 0);
}
std::uint32_t io_apic(std::uint32_t index) {
    write<std::uint32_t>(kIoApic, index);
    return read<std::uint32_t>(kIoApic + 0x10);
}
void set_io_apic(std::uint32_t index, std::uint32_t value) {
    write<std::uint32_t>(kIoApic, index);
    write<std::uint32_t>(kIoApic + 0x10, value);
}
void route(unsigned pin, std::uint32_t low) {
    set_io_apic(0x11 + 2 * pin, 0);
    set_io_apic(0x10 + 2 * pin, low);
}
constexpr std::uint32_t kLevel = 1 << 15, kMasked = 1 << 16, kLow = 1 << 13, kRemoteIrr = 1 << 14;

void on_interrupt(Frame&) {
    count = count + 1;
    if (lower_at != 0 && count >= lower_at)
        line(kTestLine, false);
    if (rtc_interrupt)
        static_cast<void>(cmos(0x0c));
    if (legacy)
        out8(0x20, 0x20);
    else
        apic::end_of_interrupt();
}

/// Takes what is pending.
void window() {
    asm volatile("sti; nop; nop; cli" : : : "memory");
}
std::uint32_t pm_timer() {
    return in32(0x608);
}
void wait_pm(std::uint32_t clocks) {
    for (const std::uint32_t start = pm_timer(); pm_timer() - start < clocks;)
        cpu_pause();
}
/// With interrupts enabled for `clocks` of the PM timer; how many came.
unsigned count_during(std::uint32_t clocks) {
    count = 0;
    enable_interrupts();
    wait_pm(clocks);
    disable_interrupts();
    return count;
}
constexpr std::uint32_t kPmHz = 3'579'545;
// An emulated host stands still when its own host has no time for it, and ticks that were due then come
// later, or not: so the checks of a rate and of one interrupt count the whole time, and make it longer if
// need be.
constexpr unsigned kAttempts = 20;

/// Interrupts come at this rate since `start`, and for `clocks`: never more of them, and at least half where
/// others use the CPU too.
bool comes_at(unsigned hz, std::uint32_t start, std::uint32_t clocks) {
    window();
    std::uint64_t came = 0;
    for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
        came += count_during(clocks);
        const std::uint64_t due = std::uint64_t{pm_timer() - start} * hz / kPmHz;
        if (came > due + 2)
            return false;
        if (came >= due / 2)
            return true;
    }
    return false;
}

/// One interrupt comes, and no other one for `clocks`.
bool comes_once(std::uint32_t clocks) {
    for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
        if (const unsigned came = count_during(clocks); came != 0)
            return came == 1 && count_during(clocks) == 0;
    }
    return false;
}

void test_io_apic() {
    expect((io_apic(1) & 0xff) == 0x20 && io_apic(1) >> 16 == 23, "version and entries");
    const std::uint32_t version = io_apic(1);
    set_io_apic(1, ~version);
    expect(io_apic(1) == version, "the version is read-only");
    set_io_apic(0, 0xffff'ffff);
    expect(io_apic(0) == 0x0f00'0000 && io_apic(2) == 0x0f00'0000, "ID and arbitration ID");
    set_io_apic(0, 0);
    route(kTestLine, kVector);
    line(kTestLine, true);
    line(kTestLine, false);
    window();
    expect(count == 1, "an edge");
    route(kTestLine, kMasked | kVector);
    line(kTestLine, true);
    line(kTestLine, false);
    route(kTestLine, kVector);
    window();
    expect(count == 1, "an edge on a masked pin is lost");
    route(kTestLine, kLevel | kVector);
    line(kTestLine, true);
    expect((io_apic(0x10 + 2 * kTestLine) & kRemoteIrr) != 0, "remote IRR");
    lower_at = 2;
    window();
    expect(count == 2, "a level, lowered before its EOI");
    expect((io_apic(0x10 + 2 * kTestLine) & kRemoteIrr) == 0, "EOI clears remote IRR");
    expect((apic::read(static_cast<apic::Register>(0x1b0)) & 1) != 0, "TMR tells a level");
    lower_at = 6;
    route(kTestLine, kLevel | kVector);
    line(kTestLine, true);
    for (unsigned i = 0; i < 10; ++i)
        window();
    expect(count == 6, "a level that stays comes again after each EOI");
    window();
    count = 0;
    route(kTestLine, kMasked | kLevel | kVector);
    line(kTestLine, true);
    window();
    expect(count == 0, "a level on a masked pin waits");
    lower_at = 1;
    route(kTestLine, kLevel | kVector);
    window();
    expect(count == 1, "and comes when it is unmasked");
    lower_at = 0;
    write<std::uint32_t>(kIoApic + 0x40, kVector);
    route(kTestLine, kMasked);
    report("io apic");
}

void program_pic(std::uint8_t icw4) {
    for (const std::uint16_t chip : {std::uint16_t{0x20}, std::uint16_t{0xa0}}) {
        out8(chip, 0x11);
        out8(static_cast<std::uint16_t>(chip + 1), chip == 0x20 ? kVector : kVector + 8);
        out8(static_cast<std::uint16_t>(chip + 1), chip == 0x20 ? 4 : 2);
        out8(static_cast<std::uint16_t>(chip + 1), icw4);
    }
}
std::uint8_t pic(std::uint16_t chip, std::uint8_t ocw3) {
    out8(chip, ocw3);
    return in8(chip);
}

void test_pic() {
    legacy = true;
    apic::write(static_cast<apic::Register>(0x350), 0x700);  // LINT0: ExtINT
    program_pic(0x01);
    out8(0x21, 0xf7);
    out8(0xa1, 0xff);
    expect(in8(0x21) == 0xf7 && in8(0xa1) == 0xff, "masks");
    count = 0;
    line(3, true);
    expect((pic(0x20, 0x0a) & 8) != 0, "IRR");
    window();
    line(3, false);
    expect(count == 1, "IRQ 3 through LINT0");
    expect(pic(0x20, 0x0b) == 0, "nothing in service after EOI");
    out8(0x21, 0xfb);
    out8(0xa1, 0xbf);
    line(14, true);
    expect(pic(0xa0, 0x0c) == 0x86, "poll of the slave");
    expect(pic(0xa0, 0x0b) == 0x40, "which is an acknowledge");
    out8(0xa0, 0x66);  // specific EOI
    expect(pic(0xa0, 0x0b) == 0, "specific EOI");
    line(14, false);
    expect(pic(0x20, 0x0c) == 0, "poll without a request");
    program_pic(0x03);  // automatic EOI
    out8(0x21, 0xf7);
    out8(0xa1, 0xff);
    line(3, true);
    window();
    line(3, false);
    expect(count == 2 && pic(0x20, 0x0b) == 0, "automatic EOI");
    expect(in8(0x4d0) == 0 && (in8(0x4d1) & 0xe) == 0xe, "ELCR: IRQ 9, 10, 11");
    out8(0x21, 0xff);
    apic::write(static_cast<apic::Register>(0x350), kMasked);
    legacy = false;
    report("pic");
}

void test_pit() {
    out8(0x61, 0);
    out8(0x43, 0xb0);  // counter 2, mode 0
    out8(0x42, 0x00);
    out8(0x42, 0x10);
    expect((in8(0x61) & 0x20) == 0, "mode 0 starts low");
    wait_pm(kPmHz / 100);
    expect((in8(0x61) & 0x20) == 0, "and counts not without its gate");
    std::uint32_t start = pm_timer();
    out8(0x61, 1);
    while ((in8(0x61) & 0x20) == 0 && pm_timer() - start < kPmHz)
        cpu_pause();
    expect((in8(0x61) & 0x20) != 0 && pm_timer() - start >= 3 * 4096 - 3, "mode 0 takes its count");
    out8(0x43, 0xe8);  // read back, status and count not latched: status of counter 2
    expect((in8(0x42) & 0xbf) == 0xb0, "read-back status");
    out8(0x43, 0xb6);
    out8(0x42, 0xff);
    out8(0x42, 0x7f);
    out8(0x43, 0x80);
    const unsigned low = in8(0x42);
    expect((low | static_cast<unsigned>(in8(0x42)) << 8) <= 0x7fff, "a latched count of mode 3");
    bool toggled = false;
    for (unsigned i = 0; i < 100'000 && !toggled; ++i)
        toggled = ((in8(0x61) ^ in8(0x61)) & 0x10) != 0;
    expect(toggled, "refresh toggles");
    route(2, kVector);
    start = pm_timer();
    out8(0x43, 0x34);  // counter 0, mode 2: 1 kHz
    out8(0x40, 1193 & 0xff);
    out8(0x40, 1193 >> 8);
    expect(comes_at(1000, start, kPmHz / 10), "IRQ 0 at 1 kHz by the I/O APIC's pin 2");
    out8(0x43, 0x30);  // one-shot from here on
    window();          // what came before that
    out8(0x40, 0x10);
    out8(0x40, 0x00);
    expect(comes_once(kPmHz / 100), "mode 0 interrupts once");
    route(2, kMasked);
    report("pit");
}

void test_rtc() {
    rtc_interrupt = true;
    route(8, kVector);
    static_cast<void>(cmos(0x0c));
    expect(cmos(0x0d) == 0x80, "battery");
    const std::uint8_t b = cmos(0x0b);
    set_cmos(0x0a, 0x26);
    const std::uint32_t start = pm_timer();
    set_cmos(0x0b, b | 0x40);
    expect(comes_at(1024, start, kPmHz / 4), "periodic interrupt at 1024 Hz");
    set_cmos(0x0b, static_cast<std::uint8_t>((b & ~0x70) | 0x10));
    unsigned updates = count_during(kPmHz + kPmHz / 10);
    expect(updates >= 1 && updates <= 3, "an update interrupt each second");
    for (const std::uint8_t alarm : {std::uint8_t{1}, std::uint8_t{3}, std::uint8_t{5}})
        set_cmos(alarm, 0xff);
    set_cmos(0x0b, static_cast<std::uint8_t>((b & ~0x70) | 0x20));
    updates = count_during(kPmHz + kPmHz / 10);
    expect(updates >= 1 && updates <= 3, "an alarm of wildcards each second");
    set_cmos(0x0b, b);
    static_cast<void>(cmos(0x0c));
    set_cmos(0x40, 0xa5);
    expect(cmos(0x40) == 0xa5, "CMOS RAM");
    rtc_interrupt = false;
    route(8, kMasked);
    report("rtc");
}

void test_hpet() {
    const auto reg = [](std::uint64_t offset) { return read<std::uint64_t>(kHpet + offset); };
    const auto set = [](std::uint64_t offset, std::uint64_t value) {
        write<std::uint64_t>(kHpet + offset, value);
    };
    const std::uint64_t hz = 1'000'000'000'000'000 / (reg(0) >> 32);
    set(0x10, 0);
    set(0xf0, 0);
    expect(reg(0xf0) == 0, "a halted counter is written");
    std::uint32_t start = pm_timer();
    set(0x10, 1);
    wait_pm(kPmHz / 20);
    const std::uint64_t clocks = reg(0xf0);
    const std::uint64_t longest = std::uint64_t{pm_timer() - start} * hz / kPmHz;
    expect(clocks >= hz / 20 - hz / 1000 && clocks <= longest + hz / 1000,
           "the counter keeps time with the PM timer");
    expect(read<std::uint32_t>(kHpet + 0xf4) == 0, "half of it can be read");
    set(0x100, 20 << 9 | 4);  // GSI 20, edge, one-shot
    route(20, kVector | kLow);
    set(0x108, reg(0xf0) + hz / 100);
    expect(comes_once(kPmHz / 20), "a comparator interrupts once");
    start = pm_timer();
    set(0x100, 20 << 9 | 4 | 8 | 0x40);
    set(0x108, reg(0xf0) + hz / 1000);
    set(0x108, hz / 1000);
    expect(comes_at(1000, start, kPmHz / 10), "periodic, 1 kHz");
    set(0x100, 0);
    route(20, kMasked);
    route(2, kVector);
    start = pm_timer();
    set(0x10, 3);
    set(0x100, 4 | 8 | 0x40);
    set(0x108, reg(0xf0) + hz / 1000);
    set(0x108, hz / 1000);
    expect(comes_at(1000, start, kPmHz / 10), "legacy replacement of IRQ 0");
    set(0x100, 0);
    set(0x10, 1);
    route(2, kMasked);
    report("hpet");
}

void test_small() {
    out8(0x64, 0xaa);
    expect((in8(0x64) & 1) != 0 && in8(0x60) == 0x55, "8042 self test");
    out8(0x64, 0x60);
    out8(0x60, 0x74);
    out8(0x64, 0x20);
    expect(in8(0x60) == 0x74, "8042 command byte");
    out8(0x64, 0xd0);
    expect((in8(0x60) & 3) == 3, "8042 output port: A20, no reset");
    expect((in8(0x92) & 2) != 0, "port 0x92: A20");
    expect((in8(0xcf9) & 4) == 0, "port 0xcf9");
    out16(0x510, 0);
    expect(in8(0x511) == 'Q' && in8(0x511) == 'E', "fw_cfg signature");
    expect(read<std::uint32_t>(0xf'0000) == 0x5f50'4d5f, "MP table");
    expect(in8(0x3fd) != 0xff && in8(0x300) == 0xff, "COM1, and nothing where nothing is");
    write<std::uint64_t>(0xff00'0ffe, 0x1122'3344'5566'7788);
    expect(read<std::uint64_t>(0xff00'0ffe) == 0x1122'3344'5566'7788, "test memory across a page");
    report("small devices");
}

}  // namespace

int payload_main() {
    set_handler(kVector, on_interrupt);
    set_handler(kVector + 3, on_interrupt);
    apic::enable(false);
    test_io_apic();
    test_pic();
    test_pit();
    test_rtc();
    test_hpet();
    test_small();
    return verdict("board");
}
