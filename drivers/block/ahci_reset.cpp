// SPDX-License-Identifier: MIT
#include "drivers/block/ahci_reset.hpp"

#include <algorithm>

namespace hv::block {

using ahci::PortRegister;

namespace {

// Milliseconds. [ahci 10.1.2 System Software Specific Initialization], [ahci 10.4 Resets]
constexpr unsigned kStopTime = 500, kHbaResetTime = 1'000, kComresetTime = 1;
constexpr unsigned kClearTime = 100;
constexpr unsigned kLogTime = 2'000;
/// A device that is ready may still spin up before it says who it is: each question has twice the last one's
/// time.
constexpr unsigned kIdentifyTime = 5'000, kMostQuestions = 3;

/// Where the queries of a reset are put: the port has no other commands then.
constexpr unsigned kQuerySlot = 0;

const char* what_is(std::uint32_t signature) {
    switch (signature) {
    case ahci::SIG_ATAPI: return "an ATAPI device, left out";
    case ahci::SIG_PM: return "a port multiplier, left out";
    default: return "a device that is no ATA disk, left out";
    }
}

}  // namespace

void AhciReset::begin(Kind kind, const Patience& patience) {
    kind_ = is_overtaken() ? Kind::link : kind;
    patience_ = patience;
    begin_count();
    hba_was_reset_ = false;
    failed_tag_.reset();
    hba_resets_ = io_.hba().reset_count();
    enter(Stage::hba, kHbaResetTime);
}

AhciReset::Progress AhciReset::poll() {
    if (stage_ < Stage::done) {
        if (is_overtaken()) {
            hba_resets_ = io_.hba().reset_count();
            kind_ = Kind::link;
            begin_count();
            enter(Stage::hba, kHbaResetTime);
        }
        step();
    }
    switch (stage_) {
    case Stage::done: return Progress::done;
    case Stage::gone: return Progress::gone;
    case Stage::unruly: return Progress::unruly;
    default: return Progress::pending;
    }
}

void AhciReset::begin_count() {
    rounds_ = patience_.rounds;
    questions_ = 0;
    lost_ = false;
}

void AhciReset::enter(Stage stage, unsigned milliseconds) {
    stage_ = stage;
    deadline_ = io_.hba().after(milliseconds);
}

void AhciReset::step() {
    switch (stage_) {
    case Stage::hba: return follow_hba();
    case Stage::stopping: return follow_stop();
    case Stage::clearing:
        if (!io_.command_bits(ahci::CMD_CLO))
            return io_.is_idle() ? start() : send_comreset();
        return expired() ? send_comreset() : void();
    case Stage::comreset:
        if (expired()) {
            set_link_control(0);
            enter(Stage::linking, grown(patience_.absent));
        }
        return;
    case Stage::linking: return follow_link();
    case Stage::busy: return follow_busy();
    case Stage::asking_log: return take_log();
    case Stage::asking_who: return take_identity();
    case Stage::closing:
        if (!io_.command_bits(ahci::CMD_FR))
            stage_ = Stage::gone;
        else if (expired())
            reset_hba();
        return;
    case Stage::done:
    case Stage::gone:
    case Stage::unruly: return;
    }
}

void AhciReset::follow_hba() {
    if (io_.hba().given_up()) {
        stage_ = Stage::unruly;
        return;
    }
    if (io_.hba().reset_under_way())
        return expired() ? give_up_hba("the HBA does not come out of its reset") : void();
    io_.hba().enable();
    io_.clear_command_bits(ahci::CMD_ST);
    enter(Stage::stopping, kStopTime);
}

void AhciReset::follow_stop() {
    if (io_.command_bits(ahci::CMD_CR)) {
        if (expired())
            reset_hba();
        return;
    }
    if (lost_) {
        io_.clear_command_bits(ahci::CMD_FRE);
        enter(Stage::closing, kStopTime);
    } else if (kind_ == Kind::link || io_.detection() != ahci::DET_ESTABLISHED) {
        send_comreset();
    } else {
        restart();
    }
}

/// [ahci 6.2.2 Software Error Recovery]
void AhciReset::restart() {
    io_.clear_errors();
    if (io_.is_idle())
        return start();
    if (!io_.hba().can_clear_busy())
        return send_comreset();
    io_.set_command_bits(ahci::CMD_CLO);
    enter(Stage::clearing, kClearTime);
}

/// [ahci 10.4.2 Port Reset]
void AhciReset::send_comreset() {
    kind_ = Kind::link;
    io_.attach();
    set_link_control(ahci::DET_COMRESET);
    ready_deadline_ = io_.hba().after(grown(patience_.ready));
    enter(Stage::comreset, kComresetTime);
}

void AhciReset::set_link_control(std::uint32_t detection) {
    // What firmware set as the highest speed stays.
    const std::uint64_t control = ahci::SCTL_IPM::set(io_.read(PortRegister::PxSCTL), ahci::IPM_NO_SLEEP);
    io_.write(PortRegister::PxSCTL, static_cast<std::uint32_t>(ahci::SCTL_DET::set(control, detection)));
}

void AhciReset::follow_link() {
    const std::uint32_t detection = io_.detection();
    const bool too_late = io_.hba().clock().now() >= ready_deadline_;
    if (detection == ahci::DET_NONE && (expired() || too_late)) {
        retry("no device");
    } else if (too_late) {
        retry("no link to the device");
    } else if (detection == ahci::DET_ESTABLISHED) {
        io_.clear_errors();
        stage_ = Stage::busy;
    }
}

void AhciReset::follow_busy() {
    if (io_.detection() != ahci::DET_ESTABLISHED)
        return enter(Stage::linking, grown(patience_.absent));
    if (!io_.is_idle()) {
        if (io_.hba().clock().now() >= ready_deadline_)
            retry("the device does not become ready");
        return;
    }
    const std::uint32_t signature = io_.read(PortRegister::PxSIG);
    if (signature != ahci::SIG_ATA)
        return lose(what_is(signature));
    start();
}

void AhciReset::start() {
    io_.clear_errors();
    io_.set_command_bits(ahci::CMD_ST);
    switch (kind_) {
    case Kind::restart: return finish();
    case Kind::restart_and_query:
        query(ata::make_fis(ata::Command::READ_LOG_EXT, ata::kNcqErrorLog, 1));
        return enter(Stage::asking_log, kLogTime);
    case Kind::link:
        query(ata::make_fis(ata::Command::IDENTIFY_DEVICE));
        return enter(Stage::asking_who, kIdentifyTime << questions_);
    }
}

void AhciReset::query(const ata::RegisterFis& fis) {
    std::ranges::fill(io_.own_data(kQuerySlot), std::byte{});
    io_.prepare_own(kQuerySlot, fis, AhciPortIo::Direction::from_device);
    io_.send(1u << kQuerySlot);
}

void AhciReset::take_log() {
    const auto progress = io_.progress(kQuerySlot);
    if (progress == AhciPortIo::Progress::pending && !expired())
        return;
    if (progress != AhciPortIo::Progress::ok)
        return reset_link();
    const auto log = io_.own_data(kQuerySlot);
    std::uint8_t sum = 0;
    for (const std::byte b : log)
        sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(b));
    const auto about = std::to_integer<std::uint8_t>(log[0]);
    const auto error = std::to_integer<std::uint8_t>(log[ata::kLogErrorByte]);
    // What the link damaged is tried again.
    if (sum == 0 && (about & ata::NQ) == 0 && (error & ata::ICRC) == 0)
        failed_tag_ = about & ata::kTagMask;
    finish();
}

void AhciReset::take_identity() {
    const auto progress = io_.progress(kQuerySlot);
    if (progress == AhciPortIo::Progress::pending && !expired())
        return;
    if (progress != AhciPortIo::Progress::ok)
        return ask_again("the device does not identify itself");
    const auto identity = AtaIdentity::parse(io_.own_data(kQuerySlot));
    if (!identity && identity.error() == Error::unsupported)
        return lose("a disk without 48-bit addresses, or of odd blocks, left out");
    if (!identity)
        return ask_again("the device says nonsense of itself");
    if (identity_ && !identity_->is_same_disk(*identity))
        return lose("another disk than before");
    identity_ = *identity;
    finish();
}

void AhciReset::finish() {
    io_.clear_errors();
    stage_ = Stage::done;
}

void AhciReset::reset_hba() {
    if (hba_was_reset_)
        return give_up_hba("does not stop");
    io_.warn("does not stop: the HBA is reset");
    hba_was_reset_ = true;
    kind_ = Kind::link;
    io_.hba().begin_reset();
    hba_resets_ = io_.hba().reset_count();
    enter(Stage::hba, kHbaResetTime);
}

void AhciReset::give_up_hba(const char* why) {
    io_.warn(why);
    // While it looks for its disk at boot, a port knows no memory but its own, and the others may go on.
    if (identity_) {
        io_.hba().give_up();
        hba_resets_ = io_.hba().reset_count();
    }
    stage_ = Stage::unruly;
}

void AhciReset::retry(const char* why) {
    --rounds_ == 0 ? lose(why) : reset_link();
}

void AhciReset::ask_again(const char* why) {
    ++questions_ == kMostQuestions ? lose(why) : reset_link();
}

void AhciReset::reset_link() {
    kind_ = Kind::link;
    io_.clear_command_bits(ahci::CMD_ST);
    enter(Stage::stopping, kStopTime);
}

void AhciReset::lose(const char* why) {
    io_.note(why);
    lost_ = true;
    io_.clear_command_bits(ahci::CMD_ST);
    enter(Stage::stopping, kStopTime);
}

}  // namespace hv::block
