// SPDX-License-Identifier: MIT
#include "drivers/net/e1000_chip.hpp"

#include "drivers/net/e1000_defs.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/wait.hpp"

namespace hv::netdrv {

using namespace e1000;

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
/// Requests that are on the way end sooner [82574 10.2.2.1 Device Control Register, GIO Master Disable].
constexpr std::uint64_t kQuietTime = 80 * kMillisecond;
constexpr std::uint64_t kResetLimit = 100 * kMillisecond;
/// A word takes the serial EEPROM some 50 us; after a reset the device reads it itself first.
constexpr std::uint64_t kEepromTime = 20 * kMillisecond;

/// Gaps of full-duplex copper links [8254x 13.4.34 Transmit IPG Register].
constexpr auto kGaps =
    static_cast<std::uint32_t>(TIPG_IPGT::make(8) | TIPG_IPGR1::make(8) | TIPG_IPGR2::make(6));

}  // namespace

bool E1000Chip::gone() {
    return read(STATUS) == ~std::uint32_t{0};
}

void E1000Chip::stop() {
    write(IMC, ~std::uint32_t{0});
    write(RCTL, 0);
    write(TCTL, TCTL_PSP);
    if (kind_ == E1000Kind::i82574)
        write(CTRL, read(CTRL) | CTRL_GIO_MASTER_DISABLE);
}

bool E1000Chip::quiet() {
    return kind_ == E1000Kind::i8254x || (read(STATUS) & STATUS_GIO_MASTER_ENABLE) == 0;
}

void E1000Chip::begin_reset() {
    write(CTRL, read(CTRL) | CTRL_RST);
}

bool E1000Chip::reset_done() {
    return (read(CTRL) & CTRL_RST) == 0;
}

Expected<void> E1000Chip::reset(const Clock& clock) {
    stop();
    // Should it not become quiet, the reset ends its requests too, if less gently.
    wait_until(clock, kQuietTime, [this] { return quiet(); });
    begin_reset();
    wait_until(clock, kResetTimeNs, [] { return false; });
    if (!wait_until(clock, kResetLimit, [this] { return reset_done(); }))
        return Unexpected{Error::timed_out};
    write(IMC, ~std::uint32_t{0});
    static_cast<void>(read(ICR));
    return {};
}

std::optional<std::uint16_t> E1000Chip::eeprom_word(const Clock& clock, unsigned index) {
    // [8254x 13.4.4 EEPROM Read Register], [82574 10.2.2.4 EEPROM Read Register]: laid out differently.
    const bool early = kind_ == E1000Kind::i8254x;
    const std::uint32_t done = early ? 1u << 4 : 1u << 1;
    write(EERD, index << (early ? 8 : 2) | EERD_START);
    std::uint32_t value = 0;
    if (!wait_until(clock, kEepromTime, [&] { return ((value = read(EERD)) & done) != 0; }))
        return std::nullopt;
    return static_cast<std::uint16_t>(EERD_DATA::get(value));
}

std::optional<MacAddress> E1000Chip::mac_of_eeprom(const Clock& clock, std::string_view name) {
    MacAddress mac{};
    std::uint16_t sum = 0;
    for (unsigned i = 0; i < kEepromWords; ++i) {
        const auto word = eeprom_word(clock, i);
        if (!word)
            return std::nullopt;
        sum = static_cast<std::uint16_t>(sum + *word);
        if (2 * i < mac.size()) {
            mac[2 * i] = static_cast<std::uint8_t>(*word & 0xff);
            mac[2 * i + 1] = static_cast<std::uint8_t>(*word >> 8);
        }
    }
    // [8254x 5.6.35 Checksum Word Calculation (Word 3Fh)]
    if (sum != kEepromSum)
        log::warning(log::Topic::net, "%.*s: the EEPROM's checksum is wrong", width(name), name.data());
    return mac;
}

MacAddress E1000Chip::mac_of_register() {
    const std::uint64_t raw = read(RAL0) | std::uint64_t{read(RAH0)} << 32;
    MacAddress mac{};
    for (unsigned i = 0; i < mac.size(); ++i)
        mac[i] = static_cast<std::uint8_t>(raw >> (8 * i) & 0xff);
    return mac;
}

Expected<MacAddress> E1000Chip::mac(const Clock& clock, std::string_view name) {
    // The EEPROM first, for Bochs' receive address registers are not filled from it.
    const auto stored = mac_of_eeprom(clock, name);
    const MacAddress mac = stored && is_station_address(*stored) ? *stored : mac_of_register();
    if (!is_station_address(mac))
        return Unexpected{Error::corrupted};
    return mac;
}

void E1000Chip::configure(bool check_sums) {
    // The PHY negotiates by itself after the reset; SLU lets the MAC see its link [8254x 8.6.2.1
    // Auto-Negotiation].
    std::uint32_t ctrl = read(CTRL);
    ctrl &= ~(CTRL_GIO_MASTER_DISABLE | CTRL_LRST | CTRL_ILOS | CTRL_FRCSPD | CTRL_FRCDPLX | CTRL_RFCE |
              CTRL_TFCE | CTRL_VME | CTRL_PHY_RST);
    ctrl |= CTRL_SLU | (kind_ == E1000Kind::i8254x ? CTRL_ASDE : 0);
    write(CTRL, ctrl);
    if (kind_ == E1000Kind::i82574)
        write(CTRL_EXT, read(CTRL_EXT) | CTRL_EXT_DRV_LOAD);
    // Only ITR delays interrupts, descriptors are written back one by one.
    write(RDTR, 0);
    write(RADV, 0);
    write(TIDV, 0);
    write(RXDCTL, XDCTL_GRAN | static_cast<std::uint32_t>(RXDCTL_WTHRESH::make(1)));
    write(TXDCTL, XDCTL_GRAN | (kind_ == E1000Kind::i82574 ? TXDCTL_COUNT_DESC : 0));
    write(RXCSUM, check_sums ? RXCSUM_IPOFLD | RXCSUM_TUOFLD : 0);
    write(TIPG, kGaps);
}

void E1000Chip::limit_interrupts(std::uint32_t per_second) {
    // In units of 256 ns [8254x 13.4.18 Interrupt Throttling Register].
    write(ITR, 1'000'000'000 / 256 / per_second);
}

void E1000Chip::enable_transmitter() {
    // What else the 82574 has there keeps its initial value.
    std::uint64_t tctl = read(TCTL) | TCTL_EN | TCTL_PSP;
    tctl = TCTL_COLD::set(TCTL_CT::set(tctl, 0x0f), 0x40);
    write(TCTL, static_cast<std::uint32_t>(tctl));
}

void E1000Chip::enable_receiver() {
    // 2 KiB buffers are what BSIZE = 0 and BSEX = 0 say.
    write(RCTL, RCTL_EN | RCTL_UPE | RCTL_MPE | RCTL_BAM | RCTL_SECRC);
    write(IMS, ICR_LSC | ICR_RXDMT0 | ICR_RXO | ICR_RXT0);
}

E1000Chip::Link E1000Chip::link() {
    constexpr unsigned kMegabits[]{10, 100, 1000, 1000};
    const std::uint32_t status = read(STATUS);
    return {(status & STATUS_LU) != 0, (status & STATUS_FD) != 0, kMegabits[STATUS_SPEED::get(status)]};
}

}  // namespace hv::netdrv
