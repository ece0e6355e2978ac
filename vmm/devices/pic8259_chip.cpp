// SPDX-License-Identifier: MIT
#include "vmm/devices/pic8259_chip.hpp"

#include <bit>

namespace hv {
namespace {

constexpr std::uint8_t line_bit(unsigned line) {
    return static_cast<std::uint8_t>(1U << line);
}

// ICW1
constexpr std::uint8_t ICW1 = 0x10;  ///< tells it from OCW2 and OCW3
constexpr std::uint8_t IC4 = 0x01;
constexpr std::uint8_t SNGL = 0x02;
constexpr std::uint8_t LTIM = 0x08;
// ICW4
constexpr std::uint8_t AEOI = 0x02;
constexpr std::uint8_t SFNM = 0x10;
// OCW3
constexpr std::uint8_t OCW3 = 0x08;
constexpr std::uint8_t RIS = 0x01;
constexpr std::uint8_t RR = 0x02;
constexpr std::uint8_t POLL = 0x04;
constexpr std::uint8_t SMM = 0x20;
constexpr std::uint8_t ESMM = 0x40;

/// OCW2 bits 7:5: R, SL, EOI.
enum class Ocw2 : std::uint8_t {
    rotate_in_auto_eoi_clear,
    eoi,
    nothing,
    specific_eoi,
    rotate_in_auto_eoi_set,
    rotate_on_eoi,
    set_priority,
    rotate_on_specific_eoi,
};

}  // namespace

void Pic8259Chip::reset() {
    const std::uint8_t lines = lines_;
    *this = Pic8259Chip{level_capable_};
    lines_ = lines;
}

void Pic8259Chip::set_line(unsigned line, bool asserted) {
    const std::uint8_t mask = line_bit(line);
    const bool was = (lines_ & mask) != 0;
    lines_ = asserted ? lines_ | mask : lines_ & static_cast<std::uint8_t>(~mask);
    if ((level_lines() & mask) != 0)
        irr_ = asserted ? irr_ | mask : irr_ & static_cast<std::uint8_t>(~mask);
    else if (asserted && !was)
        irr_ |= mask;
}

void Pic8259Chip::set_cascade(unsigned line, bool requested) {
    const std::uint8_t mask = line_bit(line);
    irr_ = requested ? irr_ | mask : irr_ & static_cast<std::uint8_t>(~mask);
}

void Pic8259Chip::set_elcr(std::uint8_t value) {
    const std::uint8_t was_level = elcr_;
    elcr_ = value & level_capable_;
    irr_ = static_cast<std::uint8_t>((irr_ & ~(was_level | elcr_)) | (lines_ & elcr_));
}

unsigned Pic8259Chip::rank_of_first(std::uint8_t bits) const {
    return bits == 0 ? 8 : static_cast<unsigned>(std::countr_zero(std::rotr(bits, lowest_ + 1)));
}

int Pic8259Chip::pending() const {
    const unsigned request = rank_of_first(irr_ & static_cast<std::uint8_t>(~imr_));
    if (request == 8)
        return -1;
    std::uint8_t blocking = isr_;
    if (special_mask_)  // what is masked while in service blocks nobody
        blocking &= static_cast<std::uint8_t>(~imr_);
    const unsigned line = line_at(request);
    if (special_fully_nested_)  // a slave with an interrupt in service may have a more urgent one
        blocking &= static_cast<std::uint8_t>(~line_bit(line));
    return request < rank_of_first(blocking) ? static_cast<int>(line) : -1;
}

Pic8259Chip::Acknowledged Pic8259Chip::acknowledge() {
    const int pending_line = pending();
    if (pending_line < 0)
        return {7, static_cast<std::uint8_t>(base_ + 7)};
    const auto line = static_cast<unsigned>(pending_line);
    const std::uint8_t mask = line_bit(line);
    if ((level_lines() & mask) == 0)
        irr_ &= static_cast<std::uint8_t>(~mask);
    if (!auto_eoi_)
        isr_ |= mask;
    else if (rotate_on_auto_eoi_)
        lowest_ = static_cast<std::uint8_t>(line);
    return {line, static_cast<std::uint8_t>(base_ + line)};
}

std::uint8_t Pic8259Chip::poll() {
    poll_ = false;
    return pending() < 0 ? 0 : static_cast<std::uint8_t>(0x80 | acknowledge().line);
}

std::uint8_t Pic8259Chip::read_command() {
    if (poll_)
        return poll();
    return read_isr_ ? isr_ : irr_;
}

std::uint8_t Pic8259Chip::read_data() {
    return poll_ ? poll() : imr_;
}

void Pic8259Chip::write_command(std::uint8_t value) {
    if ((value & ICW1) != 0)
        initialize(value);
    else if ((value & OCW3) != 0)
        write_ocw3(value);
    else
        write_ocw2(value);
}

void Pic8259Chip::initialize(std::uint8_t icw1) {  // [8259a Initialization Command Words 1 and 2]
    const std::uint8_t lines = lines_;
    const std::uint8_t elcr = elcr_;
    *this = Pic8259Chip{level_capable_};
    lines_ = lines;
    level_triggered_ = (icw1 & LTIM) != 0;
    set_elcr(elcr);
    if (level_triggered_)
        irr_ = lines_;
    single_ = (icw1 & SNGL) != 0;
    icw4_follows_ = (icw1 & IC4) != 0;
    step_ = Step::icw2;
}

void Pic8259Chip::write_data(std::uint8_t value) {
    const Step after_icw3 = icw4_follows_ ? Step::icw4 : Step::ready;
    switch (step_) {
    case Step::ready: imr_ = value; break;
    case Step::icw2:
        base_ = value & 0xf8;
        step_ = single_ ? after_icw3 : Step::icw3;
        break;
    case Step::icw3: step_ = after_icw3; break;  // the wiring between the chips is fixed
    case Step::icw4:
        auto_eoi_ = (value & AEOI) != 0;
        special_fully_nested_ = (value & SFNM) != 0;
        step_ = Step::ready;
        break;
    }
}

void Pic8259Chip::end_of_interrupt(unsigned line) {
    isr_ &= static_cast<std::uint8_t>(~line_bit(line));
}

void Pic8259Chip::write_ocw2(std::uint8_t value) {
    const auto command = static_cast<Ocw2>(value >> 5);
    unsigned line = value & 7;
    switch (command) {
    case Ocw2::rotate_in_auto_eoi_clear: rotate_on_auto_eoi_ = false; return;
    case Ocw2::rotate_in_auto_eoi_set: rotate_on_auto_eoi_ = true; return;
    case Ocw2::nothing: return;
    case Ocw2::set_priority: lowest_ = static_cast<std::uint8_t>(line); return;
    case Ocw2::eoi:
    case Ocw2::rotate_on_eoi: {
        // In special mask mode a masked interrupt is left alone [8259a Special Mask Mode].
        const unsigned rank = rank_of_first(special_mask_ ? isr_ & static_cast<std::uint8_t>(~imr_) : isr_);
        if (rank == 8)
            return;
        line = line_at(rank);
        break;
    }
    case Ocw2::specific_eoi:
    case Ocw2::rotate_on_specific_eoi: break;
    }
    end_of_interrupt(line);
    if (command == Ocw2::rotate_on_eoi || command == Ocw2::rotate_on_specific_eoi)
        lowest_ = static_cast<std::uint8_t>(line);
}

void Pic8259Chip::write_ocw3(std::uint8_t value) {
    if ((value & ESMM) != 0)
        special_mask_ = (value & SMM) != 0;
    if ((value & POLL) != 0)
        poll_ = true;
    else if ((value & RR) != 0)
        read_isr_ = (value & RIS) != 0;
}

}  // namespace hv
