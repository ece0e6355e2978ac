// SPDX-License-Identifier: MIT
#include "vmm/devices/uart16550.hpp"

#include <string_view>

namespace hv {
namespace {

enum Register : std::uint64_t { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum Ier : std::uint8_t { ERBFI = 0x01, ETBEI = 0x02, ELSI = 0x04, EDSSI = 0x08 };
/// Interrupt identification, by falling priority [pc16550d Table IV Interrupt Control Functions].
enum Iir : std::uint8_t {
    LINE_STATUS = 0x06,
    DATA = 0x04,
    TIMEOUT = 0x0c,
    THR_EMPTY = 0x02,
    MODEM = 0x00,
    NONE = 0x01
};
constexpr std::uint8_t kIirFifos = 0xc0;
enum Fcr : std::uint8_t { FIFO_ENABLE = 0x01, RECEIVER_RESET = 0x02 };
constexpr std::uint8_t DLAB = 0x80;
enum Mcr : std::uint8_t { DTR = 0x01, RTS = 0x02, OUT1 = 0x04, OUT2 = 0x08, LOOP = 0x10 };
enum Lsr : std::uint8_t { DATA_READY = 0x01, OVERRUN = 0x02, THRE = 0x20, TEMT = 0x40 };
enum Msr : std::uint8_t { CTS = 0x10, DSR = 0x20, RI = 0x40, DCD = 0x80 };

/// A character on the line: start, eight data, stop.
constexpr std::uint64_t kBitsPerCharacter = 10;
/// The character time-out [pc16550d 8.4.2 FIFO Interrupt Mode Operation].
constexpr std::uint64_t kTimeoutCharacters = 4;
constexpr std::uint64_t kBaudBase = 115'200;

}  // namespace

Uart16550::Uart16550(Clock& clock, IrqLine& irq, CharSink& sink) : clock_{clock}, irq_{irq}, sink_{sink} {}

void Uart16550::reset() {
    LockGuard guard{lock_};
    clock_.disarm(*this);
    fifo_.clear();
    queue_.clear();
    ier_ = fcr_ = lcr_ = mcr_ = msr_deltas_ = scratch_ = 0;
    divisor_low_ = 12;
    divisor_high_ = 0;
    overrun_ = transmitter_empty_event_ = timed_out_ = false;
    update_irq();
}

bool Uart16550::fifo_enabled() const {
    return (fcr_ & FIFO_ENABLE) != 0;
}
bool Uart16550::loopback() const {
    return (mcr_ & LOOP) != 0;
}

unsigned Uart16550::trigger_level() const {
    constexpr std::array<std::uint8_t, 4> kLevels{1, 4, 8, 14};
    return fifo_enabled() ? kLevels[fcr_ >> 6] : 1;
}

std::uint8_t Uart16550::line_status() const {
    return static_cast<std::uint8_t>(THRE | TEMT | (fifo_.empty() ? 0 : DATA_READY) |
                                     (overrun_ ? OVERRUN : 0));
}

std::uint8_t Uart16550::modem_lines() const {
    if (!loopback())
        return CTS | DSR | DCD;
    return static_cast<std::uint8_t>(((mcr_ & RTS) != 0 ? CTS : 0) | ((mcr_ & DTR) != 0 ? DSR : 0) |
                                     ((mcr_ & OUT1) != 0 ? RI : 0) | ((mcr_ & OUT2) != 0 ? DCD : 0));
}

std::uint8_t Uart16550::interrupt_id() const {
    if ((ier_ & ELSI) != 0 && overrun_)
        return LINE_STATUS;
    if ((ier_ & ERBFI) != 0 && fifo_.count >= trigger_level())
        return DATA;
    if ((ier_ & ERBFI) != 0 && timed_out_)
        return TIMEOUT;
    if ((ier_ & ETBEI) != 0 && transmitter_empty_event_)
        return THR_EMPTY;
    if ((ier_ & EDSSI) != 0 && msr_deltas_ != 0)
        return MODEM;
    return NONE;
}

void Uart16550::update_irq() {
    const bool level = interrupt_id() != NONE;
    if (level == irq_level_)
        return;
    irq_level_ = level;
    irq_.set(level);
}

std::uint8_t Uart16550::read_byte(std::uint64_t offset) {
    LockGuard guard{lock_};
    switch (offset) {
    case RBR_THR_DLL: return (lcr_ & DLAB) != 0 ? divisor_low_ : read_receiver();
    case IER_DLM: return (lcr_ & DLAB) != 0 ? divisor_high_ : ier_;
    case IIR_FCR: {
        const std::uint8_t id = interrupt_id();
        if (id == THR_EMPTY) {
            transmitter_empty_event_ = false;
            update_irq();
        }
        return id | (fifo_enabled() ? kIirFifos : 0);
    }
    case LCR: return lcr_;
    case MCR: return mcr_;
    case LSR: {
        const std::uint8_t status = line_status();
        if (overrun_) {
            overrun_ = false;
            update_irq();
        }
        return status;
    }
    case MSR: {
        const auto status = static_cast<std::uint8_t>(modem_lines() | msr_deltas_);
        if (msr_deltas_ != 0) {
            msr_deltas_ = 0;
            update_irq();
        }
        return status;
    }
    case SCR: return scratch_;
    default: return 0xff;
    }
}

void Uart16550::write_byte(std::uint64_t offset, std::uint8_t value) {
    LockGuard guard{lock_};
    switch (offset) {
    case RBR_THR_DLL:
        if ((lcr_ & DLAB) != 0)
            divisor_low_ = value;
        else
            write_transmitter(value);
        break;
    case IER_DLM:
        if ((lcr_ & DLAB) != 0) {
            divisor_high_ = value;
            break;
        }
        // Enabling the interrupt while the register is empty raises it.
        if ((value & ETBEI) != 0 && (ier_ & ETBEI) == 0)
            transmitter_empty_event_ = true;
        ier_ = value & 0x0f;
        update_irq();
        break;
    case IIR_FCR: write_fifo_control(value); break;
    case LCR: lcr_ = value; break;
    case MCR: write_modem_control(value); break;
    case SCR: scratch_ = value; break;
    default: break;
    }
}

std::uint8_t Uart16550::read_receiver() {
    if (fifo_.empty())
        return 0;
    const std::uint8_t byte = fifo_.pop();
    timed_out_ = false;
    refill();
    update_irq();
    return byte;
}

void Uart16550::write_transmitter(std::uint8_t byte) {
    if (!loopback()) [[likely]] {
        const char character = static_cast<char>(byte);
        sink_.put(std::string_view{&character, 1});
    } else if (fifo_.count < fifo_size()) {
        fifo_.push(byte);
        restart_timeout();
    } else {
        overrun_ = true;
    }
    // The write takes the interrupt back; the register is empty again at once, which raises it anew: an edge
    // for the interrupt controller.
    if ((ier_ & ETBEI) != 0 && transmitter_empty_event_) {
        transmitter_empty_event_ = false;
        update_irq();
    }
    transmitter_empty_event_ = true;
    if (ier_ != 0)
        update_irq();
}

void Uart16550::write_fifo_control(std::uint8_t value) {
    const bool switched = ((value ^ fcr_) & FIFO_ENABLE) != 0;
    if (switched || (value & RECEIVER_RESET) != 0) {
        fifo_.clear();
        overrun_ = false;
        timed_out_ = false;
    }
    // Without FIFO enable the other bits are not programmed [pc16550d 8.4 FIFO Control Register].
    fcr_ = (value & FIFO_ENABLE) != 0 ? value & 0xc9 : 0;
    refill();
    update_irq();
}

void Uart16550::write_modem_control(std::uint8_t value) {
    const std::uint8_t before = modem_lines();
    mcr_ = value & 0x1f;
    const auto changed = static_cast<std::uint8_t>(before ^ modem_lines());
    // Delta bits lie four below their lines; RI reports its trailing edge only.
    const bool ring_ended = (changed & before & RI) != 0;
    msr_deltas_ |= static_cast<std::uint8_t>((changed & (CTS | DSR | DCD)) >> 4 | (ring_ended ? RI >> 4 : 0));
    refill();
    update_irq();
}

bool Uart16550::receive(char character) {
    LockGuard guard{lock_};
    if (queue_.full())
        return false;
    queue_.push(static_cast<std::uint8_t>(character));
    refill();
    update_irq();
    return true;
}

void Uart16550::refill() {
    while (!loopback() && !queue_.empty() && fifo_.count < fifo_size())
        fifo_.push(queue_.pop());
    restart_timeout();
}

void Uart16550::restart_timeout() {
    if (!fifo_enabled() || fifo_.empty() || fifo_.count >= trigger_level()) {
        clock_.disarm(*this);
        return;
    }
    const std::uint64_t divisor = std::uint64_t{divisor_high_} << 8 | divisor_low_;
    const std::uint64_t bits = kTimeoutCharacters * kBitsPerCharacter * (divisor == 0 ? 65'536 : divisor);
    clock_.arm(*this, clock_.now() + Clock::scale(bits, clock_.hz(), kBaudBase));
}

void Uart16550::fire() {
    LockGuard guard{lock_};
    // A late call for an earlier deadline finds the FIFO empty or at its trigger level: no harm, no
    // interrupt.
    timed_out_ = fifo_enabled() && !fifo_.empty();
    update_irq();
}

}  // namespace hv
