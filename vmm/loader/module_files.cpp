// SPDX-License-Identifier: MIT
#include "vmm/loader/module_files.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/loader/ustar.hpp"

#include <algorithm>

namespace hv::loader {

Expected<void> ModuleFiles::add(std::string_view name, std::span<const std::byte> bytes) {
    if (!(name.empty() || name.ends_with(".tar")) || !UstarReader::is_ustar(bytes))
        return add_file(name, bytes);
    UstarReader archive{bytes};
    while (const auto file = archive.next())
        HV_TRY(add_file(file->name, file->bytes));
    if (archive.broken())
        log::warning(log::Topic::boot, "boot module \"%.*s\": the archive is damaged, files may be missing",
                     width(name), name.data());
    return {};
}

Expected<void> ModuleFiles::add_file(std::string_view name, std::span<const std::byte> bytes) {
    if (std::any_of(files_.begin(), files_.end(), [&](const File& file) { return file.name() == name; })) {
        log::warning(log::Topic::boot, "boot module \"%.*s\": there is one of this name already, skipped",
                     width(name), name.data());
        return {};
    }
    File file;
    HV_TRY(file.name_text.reserve(name.size()));
    for (const char c : name)
        HV_TRY(file.name_text.push(c));
    file.bytes = bytes;
    return files_.push(std::move(file));
}

const ModuleFiles::File* ModuleFiles::find(std::string_view path) const {
    const auto named = [&](std::string_view name) {
        const auto* const found =
            std::find_if(files_.begin(), files_.end(), [&](const File& file) { return file.name() == name; });
        return found == files_.end() ? nullptr : found;
    };
    const File* const exact = named(path);
    return exact != nullptr ? exact : named(path.substr(path.rfind('/') + 1));
}

}  // namespace hv::loader
