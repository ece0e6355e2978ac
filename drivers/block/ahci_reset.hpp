// SPDX-License-Identifier: MIT
// How a port comes to work, at boot as after an error: in steps that do not wait. After an error that the
// device reported, the port is only restarted, and a device that was working on queued commands is asked
// which of them failed. When that does not help, the link is reset, and the device must then be the one that
// it was. A port that does not stop at all has the whole HBA reset.
#pragma once

#include "drivers/block/ahci_port_io.hpp"
#include "drivers/block/ata_identity.hpp"

#include <atomic>
#include <cstdint>
#include <optional>

namespace hv::block {

class AhciReset {
public:
    enum class Kind : std::uint8_t {
        restart,            ///< the device has reported an error
        restart_and_query,  ///< of a queued command
        link,
    };
    enum class Progress : std::uint8_t {
        pending,
        done,    ///< the port takes commands; it raises no interrupts yet
        gone,    ///< there is no disk, or none that works, or not the one that was; the port is stopped
        unruly,  ///< the port could not be stopped, or another one of the HBA, which is given up
    };
    /// Milliseconds.
    struct Patience {
        unsigned absent;  ///< with a link that shows no device
        unsigned ready;   ///< until a device that is there takes commands
        /// Of link resets before a device that does not get ready is given up, each with twice the time of
        /// the last.
        unsigned rounds;
    };

    /// `io` outlives this. It was stopped, and PxIE is 0.
    explicit AhciReset(AhciPortIo& io) : io_{io} {}

    /// PxIE is 0.
    void begin(Kind kind, const Patience& patience);
    /// One step.
    Progress poll();

    /// After a reset that is done, since when the HBA was reset: the port has stopped.
    [[nodiscard]] bool is_overtaken() { return io_.hba().reset_count() != hba_resets_; }
    /// The tag of the queued command that failed by itself, as the device said.
    [[nodiscard]] std::optional<unsigned> failed_tag() const { return failed_tag_; }
    /// Of the disk, once a reset by Kind::link was done.
    [[nodiscard]] const std::optional<AtaIdentity>& identity() const { return identity_; }

private:
    enum class Stage : std::uint8_t {
        hba,         ///< being reset
        stopping,    ///< PxCMD.CR has to become 0
        clearing,    ///< PxCMD.CLO has to
        comreset,    ///< is being sent
        linking,     ///< PxSSTS.DET shows no established link yet
        busy,        ///< the device is
        asking_log,  ///< READ LOG EXT is under way
        asking_who,  ///< IDENTIFY DEVICE is
        closing,     ///< PxCMD.FR has to become 0
        done,
        gone,
        unruly,
    };

    void begin_count();
    void enter(Stage stage, unsigned milliseconds);
    /// A device that is slow to come back must not be reset on its way again and again.
    [[nodiscard]] unsigned grown(unsigned milliseconds) const {
        return milliseconds << (patience_.rounds - rounds_);
    }
    [[nodiscard]] bool expired() { return io_.hba().clock().now() >= deadline_; }
    void step();
    void follow_hba();
    void follow_stop();
    void restart();
    void send_comreset();
    void set_link_control(std::uint32_t detection);
    void follow_link();
    void follow_busy();
    void start();
    void query(const ata::RegisterFis& fis);
    void take_log();
    void take_identity();
    void finish();
    void reset_hba();
    /// The port does not stop, whatever is done to it.
    void give_up_hba(const char* why);
    /// Resets the link once more, or gives up a device that does not get ready,
    void retry(const char* why);
    /// or one that does not say who it is.
    void ask_again(const char* why);
    void reset_link();
    /// Gives the device up: the port is stopped for good.
    void lose(const char* why);

    AhciPortIo& io_;
    Stage stage_{Stage::gone};
    Kind kind_{Kind::link};
    Patience patience_{};
    unsigned rounds_{0};     ///< that are left
    unsigned questions_{0};  ///< who the device is, that led to nothing
    std::uint64_t deadline_{0};
    std::uint64_t ready_deadline_{0};
    std::atomic<std::uint32_t> hba_resets_{0};  ///< is_overtaken() may be asked while begin() and poll() run
    bool lost_{false};
    bool hba_was_reset_{false};  ///< by this
    std::optional<unsigned> failed_tag_;
    std::optional<AtaIdentity> identity_;
};

}  // namespace hv::block
