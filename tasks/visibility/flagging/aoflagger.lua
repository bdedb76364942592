--[[
 The generic search of AOFlagger, for sets in which some visibilities are flagged before: those take no part in it.
 Written for version 3 of its interface.
]]--

aoflagger.require_min_version("3.0")

local threshold = 1.0 -- of SumThreshold; lower finds more
local iterations = 3
local step = 2.0 -- by which the limits of an iteration are higher than those of the next
local reach = 0.2 -- of the scale-invariant rank operator

function execute(input)
  local before = input:copy()
  for _, polarization in ipairs(input:get_polarizations()) do
    local original = input:convert_to_polarization(polarization):convert_to_complex("amplitude")
    local data = original:copy()
    for iteration = 1, iterations - 1 do
      local factor = threshold * math.pow(step, iterations - iteration)
      aoflagger.sumthreshold_masked(data, original, factor, factor, true, true)
      data:set_visibilities(original)
      data:join_mask(original)
      local smooth = aoflagger.downsample(data, 3, 1, true)
      aoflagger.low_pass_filter(smooth, 21, 31, 2.5, 5.0)
      aoflagger.upsample(smooth, data, 3, 1)
      local residual = original - data
      residual:set_mask(data)
      data = residual
    end
    aoflagger.sumthreshold_masked(data, original, threshold, threshold, true, true)
    input:set_polarization_data(polarization, data:convert_to_complex("complex"))
  end
  aoflagger.scale_invariant_rank_operator_masked(input, before, reach, reach)
  input:join_mask(before)
  input:flag_nans()
end
